"""Spaces of observations: what each part becomes, and why some are refused."""

from collections import OrderedDict

import numpy as np
import pytest
from gymnasium import spaces

from wm_core.contract.errors import EnvFault, SettingsError
from wm_core.contract.image import area_resize
from wm_core.contract.inputs import MAX_INPUTS, RGB, Depth, Mono
from wm_core.contract.spec import ActionSpec, Spec
from wm_core.training.spaces import ObsReader

ACTION = ActionSpec(low=(-1.0,), high=(1.0,))


def box(shape, low=-np.inf, high=np.inf, dtype=np.float32) -> spaces.Box:
    return spaces.Box(low, high, shape, dtype)


def pixels(*shape: int) -> spaces.Box:
    return box(shape, 0, 255, np.uint8)


def frame(*shape: int, most: int = 255) -> np.ndarray:
    return np.random.default_rng(0).integers(1, most + 1, shape, dtype=np.uint8)


def read(space, value, size=64, fit="crop"):
    """The inputs that ``value`` becomes; they fit the spec that the space gives."""
    reader = ObsReader(space, {}, image_size=size, fit=fit)
    spec = Spec(images=reader.images, vectors=reader.vectors, action=ACTION)
    obs = reader.read(value, spec)
    spec.check_obs(obs)
    return obs


# -------------------------------------------------------------------------------------- images


@pytest.mark.parametrize(
    ("shape", "kind", "where"),
    [
        ((40, 48), Mono, lambda v: v[:, :, None]),
        ((40, 48, 1), Mono, lambda v: v),
        ((1, 40, 48), Mono, lambda v: v[0, :, :, None]),
        ((40, 48, 3), RGB, lambda v: v),
        ((3, 40, 48), RGB, lambda v: v.transpose(1, 2, 0)),
        ((40, 48, 4), RGB, lambda v: v[:, :, :3]),
        ((5, 40, 48, 3), RGB, lambda v: v[4]),
        ((5, 3, 40, 48), RGB, lambda v: v[4].transpose(1, 2, 0)),
        ((5, 40, 48, 4), RGB, lambda v: v[4, :, :, :3]),
        ((40, 48, 9), RGB, lambda v: v[:, :, 6:]),
        ((9, 40, 48), RGB, lambda v: v[6:].transpose(1, 2, 0)),
        ((4, 40, 48), Mono, lambda v: v[3, :, :, None]),
        ((4, 40, 48, 1), Mono, lambda v: v[3]),
    ],
)
def test_the_image_is_found_in_every_layout(shape, kind, where):
    value = frame(*shape)
    obs = read(pixels(*shape), value, size=32)
    seen = where(value)
    assert isinstance(ObsReader(pixels(*shape), {}).images["image"], kind)
    np.testing.assert_array_equal(obs["image"], area_resize(seen[:, 4:44], 32, 32))


@pytest.mark.parametrize(
    ("space", "value", "shade"),
    [
        (box((32, 32, 3), 0, 1), 0.5, 128),
        (box((32, 32, 3), 0, 255), 77.4, 77),
        (box((3, 32, 32), -1, 1), 1.0, 255),
        (box((32, 32), 0, 1, np.float64), 1.0, 255),
        (box((32, 32, 1), 0, 255, np.int64), 200, 200),
        (box((32, 32, 1), -10, 10, np.int32), 0, 128),
        (box((32, 32, 3), 0, 65535, np.uint16), 65535, 255),
        (box((32, 32, 1), 0, 1, np.bool_), True, 255),
        (box((32, 32, 1), 0, 5, np.uint8), 1, 51),  # a board of six kinds of field
        (box((32, 32, 3), 0, 1), 7.0, 255),  # beyond its bounds
    ],
)
def test_values_become_pixels_by_the_bounds_of_their_space(space, value, shade):
    seen = read(space, np.full(space.shape, value, space.dtype), size=32)["image"]
    assert seen.dtype == np.uint8
    assert (seen == shade).all()


def test_distances_stay_distances_within_the_bounds_of_their_space():
    space = box((32, 32), 300, 4000, np.uint16)
    image = ObsReader(space, {}, image_size=32).images["image"]
    assert (image.near_mm, image.far_mm, type(image)) == (300, 4000, Depth)
    value = np.arange(1024, dtype=np.uint16).reshape(32, 32)
    np.testing.assert_array_equal(read(space, value, size=32)["image"][..., 0], value)


def test_distances_that_never_change_have_a_range_too():
    space = box((32, 32, 1), 65535, 65535, np.uint16)
    assert ObsReader(space, {}).images["image"].far_mm == 65535


def test_a_small_board_is_enlarged_by_a_whole_factor():
    board = frame(7, 5, 3)
    obs = read(pixels(7, 5, 3), board)
    want = np.zeros((64, 64, 3), np.uint8)
    want[:63, 9:54] = board.repeat(9, axis=0).repeat(9, axis=1)  # 64 // 7 = 9
    np.testing.assert_array_equal(obs["image"], want)


@pytest.mark.parametrize(
    ("fit", "shape", "want"),
    [
        ("crop", (80, 160, 3), "crop"),
        ("pad", (80, 160, 3), "pad"),
        ("squeeze", (80, 160, 3), "squeeze"),
        ("crop", (40, 160, 3), "pad"),  # a crop to 40 x 40 would have to be enlarged
        ("squeeze", (40, 20, 3), "squeeze"),
    ],
)
def test_the_rule_of_another_shape_is_chosen_and_stands_in_the_spec(fit, shape, want):
    reader = ObsReader(pixels(*shape), {}, fit=fit)
    assert reader.images["image"].fit == want
    assert read(pixels(*shape), frame(*shape), fit=fit)["image"].any()


@pytest.mark.parametrize(
    ("space", "said"),
    [
        (pixels(64, 64, 7), "looks like an image: expected an axis of 1, 3 or 4 channels"),
        (box((64, 64, 3)), r"looks like an image: expected finite bounds.*float32\); give"),
        (box((3, 64, 64), -3e38, 3e38), "looks like an image: expected finite bounds"),
        (pixels(9000, 4, 3), "at most 8192 rows and columns"),
    ],
)
def test_a_refused_image_is_spoken_of_as_an_image(space, said):
    with pytest.raises(SettingsError, match=said) as caught:
        ObsReader(space, {})
    assert "vector" not in str(caught.value)
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------------------------- numbers


@pytest.mark.parametrize(
    ("space", "value", "want"),
    [
        (box((3,), dtype=np.float64), [1, 2, 3], [1, 2, 3]),
        (box((2, 2)), [[1, 2], [3, 4]], [1, 2, 3, 4]),
        (box((2, 1, 2)), [[[1, 2]], [[3, 4]]], [1, 2, 3, 4]),
        (box((), dtype=np.float16), 1.5, [1.5]),
        (box((2,), -9, 9, np.int64), [-9, 3], [-9, 3]),
        (box((2,), 0, 1, np.bool_), [True, False], [1, 0]),
        (box((3, 3, 4), 0, 1, np.bool_), np.ones((3, 3, 4)), [1] * 36),
        (spaces.MultiBinary(3), [1, 0, 1], [1, 0, 1]),
        (spaces.MultiBinary((2, 2)), [[1, 0], [0, 1]], [1, 0, 0, 1]),
        (spaces.Discrete(3, start=5), 6, [0, 1, 0]),
        (spaces.Discrete(1), 0, [1]),
        (spaces.MultiDiscrete([2, 3]), [1, 2], [0, 1, 0, 0, 1]),
        (spaces.MultiDiscrete([[2], [2]], start=[[1], [0]]), [[1], [1]], [1, 0, 0, 1]),
        (pixels(1, 4), [[9, 8, 7, 6]], [9, 8, 7, 6]),  # one row is no image
        (pixels(5, 5, 2), np.full((5, 5, 2), 3, np.uint8), [3] * 50),
        (pixels(6, 6, 4), np.full((6, 6, 4), 3, np.uint8), [3] * 144),  # planes, no transparency
    ],
)
def test_everything_else_becomes_a_vector(space, value, want):
    assert read(space, np.array(value, space.dtype))["vector"].tolist() == want


def test_names_of_the_environment_are_kept():
    space = spaces.Dict({"joint.pos": box((2,))})
    reader = ObsReader(space, {"joint.pos_names": ["hip", "knee"]})
    assert reader.vectors["joint_pos"].names == ("hip", "knee")
    with pytest.raises(
        SettingsError, match=r"metadata\['joint_pos_names'\]: expected a list of 2"
    ):
        ObsReader(space, {"joint.pos_names": ["a\nb", "c"]})


# ------------------------------------------------------------------ dictionaries and tuples


def test_what_is_nested_is_named_by_the_path_to_it():
    space = spaces.Dict(
        {
            "arm": spaces.Dict({"joint.pos": box((2,)), "cam": pixels(64, 64, 3)}),
            "pair": spaces.Tuple([spaces.Discrete(2), box((1,))]),
            "2nd": box((1,)),
            "action": box((1,)),
        }
    )
    value = {
        "arm": {"joint.pos": np.float32([1, 2]), "cam": frame(64, 64, 3), "more": None},
        "pair": (1, np.float32([3])),
        "2nd": np.float32([4]),
        "action": np.float32([5]),
    }
    obs = read(space, OrderedDict(value))
    assert {k: v.tolist() for k, v in obs.items() if k != "arm_cam"} == {
        "arm_joint_pos": [1, 2],
        "pair_0": [0, 1],
        "pair_1": [3],
        "part_2nd": [4],
        "obs_action": [5],
    }
    np.testing.assert_array_equal(obs["arm_cam"], value["arm"]["cam"])


def test_a_key_with_a_name_that_policies_and_recordings_use_themselves_gets_another():
    own = ("action", "step", "prev_action", "is_first", "command", "value", "surprise")
    keys = (*own, "items", "values", "type", "reward")
    obs = read(spaces.Dict({key: box((1,)) for key in keys}), {key: np.zeros(1) for key in keys})
    assert {*obs} == {*(f"obs_{key}" for key in own), "items", "values", "type", "reward"}


def test_a_tuple_alone_has_names_too():
    obs = read(spaces.Tuple([box((1,)), spaces.Discrete(2)]), (np.float32([2]), 0))
    assert {k: v.tolist() for k, v in obs.items()} == {"part_0": [2], "part_1": [1, 0]}


def test_a_part_without_numbers_is_left_out():
    space = spaces.Dict({"goal": box((0,)), "place": box((1,))})
    assert [*read(space, {"goal": np.zeros(0), "place": np.zeros(1)})] == ["place"]


@pytest.mark.parametrize(
    ("space", "said"),
    [
        (spaces.Text(5), "the observation.*expected numbers of a fixed size.*Text"),
        (spaces.Dict({"a": spaces.Sequence(box((2,)))}), "observation 'a'.*Sequence"),
        (spaces.Dict({"a": spaces.Graph(box((2,)), None)}), "observation 'a'.*Graph"),
        (
            spaces.Dict({"a.b": box((1,)), "a_b": box((1,))}),
            "'a.b' and 'a_b' would both be.*'a_b'",
        ),
        (spaces.Dict({"x" * 65: box((1,))}), "at most 64 letters, got 65"),
        (
            spaces.Dict({f"x{i}": box((1,)) for i in range(65)}),
            f"1 to {MAX_INPUTS} inputs, got 65",
        ),
        (spaces.Dict({}), f"1 to {MAX_INPUTS} inputs, got 0"),
        (box((0,)), f"1 to {MAX_INPUTS} inputs, got 0"),
        (spaces.Discrete(70_000), "1 to 65536 numbers, got 70000"),
        (box((70_000,)), "1 to 65536 numbers, got 70000"),
        (spaces.Dict({f"x{i}": box((65_536,)) for i in range(9)}), "at most .* bytes, got"),
    ],
)
def test_a_space_that_cannot_be_learnt_from_is_refused_in_one_line(space, said):
    with pytest.raises(SettingsError, match=said) as caught:
        ObsReader(space, {})
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 450


# ------------------------------------------------------------------------- values at run time

SPACE = spaces.Dict(
    {
        "cam": pixels(64, 64, 3),
        "soft": box((32, 32, 1), 0, 1),
        "place": box((2,)),
        "room": spaces.Discrete(3, start=1),
        "pair": spaces.Tuple([box((1,)), spaces.MultiDiscrete([2, 2])]),
    }
)


def good() -> dict:
    return SPACE.sample()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"place": np.zeros(3)}, r"'place': expected \(2,\) float32, got \(3,\) float64"),
        ({"place": None}, r"'place': expected \(2,\) float32, got None"),
        ({"place": "near"}, r"'place': expected \(2,\) float32, got str"),
        ({"place": [[1], [2, 3]]}, r"'place': expected \(2,\) float32, got list"),
        ({"place": np.array([1, None])}, r"'place'.*got \(2,\) object"),
        ({"place": np.zeros(2, complex)}, r"'place'.*got \(2,\) complex128"),
        ({"cam": np.zeros((64, 64, 3))}, r"'cam': expected \(64, 64, 3\) uint8, got.*float64"),
        ({"cam": np.zeros((64, 64, 3), int)}, r"'cam': expected \(64, 64, 3\) uint8, got.*int64"),
        ({"cam": np.zeros((3, 64, 64), np.uint8)}, r"'cam'.*got \(3, 64, 64\) uint8"),
        ({"soft": np.zeros((32, 32, 1), np.uint8)}, r"'soft': expected.*float32, got.*uint8"),
        ({"room": 0}, r"'room': expected a whole number of 1 \.\. 3, got 0"),
        ({"room": 4}, r"'room': expected a whole number of 1 \.\. 3, got 4"),
        ({"room": 1.5}, r"'room': expected a whole number of 1 \.\. 3, got 1\.5"),
        ({"pair": (np.zeros(1),)}, r"'pair': expected a tuple of at least 2 parts, got tuple"),
        ({"pair": None}, r"'pair': expected a tuple of at least 1 parts, got None"),
        ({"pair": (np.zeros(1), [0, 2])}, r"'pair.1': expected a whole number of 0 \.\. 1, got 2"),
    ],
)
def test_a_value_that_does_not_fit_its_space_is_the_environments_fault(wrong, said):
    with pytest.raises(EnvFault, match=said) as caught:
        read(SPACE, good() | wrong)
    assert "\n" not in str(caught.value)


def test_a_missing_key_and_no_dictionary_at_all_are_named():
    value = good()
    del value["room"]
    with pytest.raises(EnvFault, match=r"expected the key 'room', got \['cam'"):
        read(SPACE, value)
    with pytest.raises(EnvFault, match="observation: expected a dictionary, got None"):
        read(SPACE, None)


def test_numbers_that_are_not_finite_go_on_as_they_are():
    value = good() | {
        "soft": np.full((32, 32, 1), np.nan, np.float32),
        "place": np.array([np.nan, 1e300]),
        "room": float("nan"),
        "pair": (np.float32([np.inf]), np.array([np.nan, 1])),
    }
    reader = ObsReader(SPACE, {}, image_size=32)
    spec = Spec(images=reader.images, vectors=reader.vectors, action=ACTION)
    obs = reader.read(value, spec)
    assert np.isnan(obs["place"][0])
    assert np.isinf(obs["place"][1])
    assert np.isnan(obs["room"]).all()
    np.testing.assert_array_equal(obs["pair_1"], [np.nan, np.nan, 0, 1])
    assert (obs["soft"] == 0).all()
    assert reader.not_finite == ("soft",)  # which pixels cannot show
    reader.read(good(), spec)
    assert reader.not_finite == ()


def test_what_was_read_is_the_readers_own():
    value = good()
    kept = read(SPACE, value)
    before = {name: array.copy() for name, array in kept.items()}
    for array in (value["cam"], value["soft"], value["place"], *value["pair"]):
        array[...] = 1
    for name, array in kept.items():
        np.testing.assert_array_equal(array, before[name])


def test_axes_of_length_one_may_be_missing_or_too_many():
    assert read(box((1,)), 3.0)["vector"].tolist() == [3]
    assert read(box((2,)), np.ones((2, 1)))["vector"].tolist() == [1, 1]
    assert read(spaces.Discrete(2), np.array([1]))["vector"].tolist() == [0, 1]
    with pytest.raises(EnvFault, match=r"expected \(2, 3\) float32, got \(3, 2\)"):
        read(box((2, 3)), np.ones((3, 2)))


def test_an_input_that_the_environment_lacks_is_named():
    reader = ObsReader(box((2,)), {})
    spec = Spec(images=ObsReader(pixels(64, 64, 3), {}).images, action=ACTION)
    with pytest.raises(SettingsError, match=r"input 'image' .* vectors \['vector'\]"):
        reader.read(np.zeros(2), spec)


def test_the_rules_say_what_became_of_each_part():
    rules = ObsReader(
        spaces.Dict({"c": box((4, 3, 32, 48), 0, 1), "n": box((2, 2)), "m": spaces.Discrete(4)}),
        {},
    ).rules
    assert rules["c"].startswith("c: Box(0.0, 1.0, (4, 3, 32, 48), float32); newest of 4 frames")
    assert "channels first, 0 .. 1 becomes 0 .. 255; 48x32 resized and padded" in rules["c"]
    assert rules["n"].endswith("flattened")
    assert rules["m"] == "m: Discrete(4); one-hot of 4"
