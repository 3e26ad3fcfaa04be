"""What is not exactly the policy that was published is refused, with a sentence that says why."""

import hashlib
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest

from wm_core.contract.card import CarryPair, blob_of
from wm_core.contract.errors import PolicyRefused
from wm_core.contract.golden import read_golden
from wm_core.contract.onnx_limits import weights_hash
from wm_core.contract.runner import PolicyEngine, PolicyRunner
from wm_core.contract.spec import ActionSpec, ImageSpec


def test_a_published_policy_loads_by_its_folder_and_by_its_file(folder):
    assert PolicyRunner.load(folder).manifest.version == 3
    assert PolicyRunner.load(folder / "policy.onnx").card.version == 3


@pytest.mark.parametrize("name", ["policy.onnx", "policy.golden.npz", "policy.manifest.json"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(PolicyRefused, match=f"cannot read .*{name}"):
        PolicyRunner.load(folder)


@pytest.mark.parametrize("name", ["policy.onnx", "policy.golden.npz"])
def test_a_truncated_file_is_refused(folder, name):
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[:-1])
    with pytest.raises(PolicyRefused, match=f"{name}: expected {len(data)} bytes"):
        PolicyRunner.load(folder)


def test_a_flipped_byte_anywhere_is_refused(folder):
    path = folder / "policy.onnx"
    data = bytearray(path.read_bytes())
    for at in range(0, len(data), 97):
        data[at] ^= 1
        path.write_bytes(data)
        with pytest.raises(PolicyRefused, match="sha256"):
            PolicyRunner.load(folder)
        data[at] ^= 1
    path.write_bytes(data)
    PolicyRunner.load(folder)


@pytest.mark.parametrize("junk", [b"", b"hello", bytes(range(256)) * 8])
def test_bytes_that_are_no_model_are_refused(junk):
    with pytest.raises(PolicyRefused, match=r"does not load|no card"):
        PolicyRunner.from_bytes(junk)


def test_every_truncation_of_a_model_is_refused(model_of):
    model = model_of()
    for size in range(0, len(model), 53):
        with pytest.raises(PolicyRefused):
            PolicyRunner.from_bytes(model[:size])


def test_a_file_above_the_limit_is_refused(model_of):
    model = model_of()
    with pytest.raises(PolicyRefused, match=f"at most 100 bytes, got {len(model)}"):
        PolicyRunner.from_bytes(model, max_bytes=100)


def test_a_model_without_a_card_is_refused(model_of):
    with pytest.raises(PolicyRefused, match="no card"):
        PolicyRunner.from_bytes(model_of(card=""))


@pytest.mark.parametrize("card", ["{}", "nonsense", '{"card_version": 2}', "[]"])
def test_a_malformed_card_is_refused(model_of, card):
    with pytest.raises(PolicyRefused, match="card does not fit"):
        PolicyRunner.from_bytes(model_of(card=card))


def test_a_card_that_differs_from_its_graph_is_refused(model_of):
    card = json.loads(PolicyRunner.from_bytes(model_of()).card.model_dump_json())
    card["inputs"][1]["shape"] = [1, 3]
    with pytest.raises(PolicyRefused, match=r"input 'proprio'.*\(1, 3\).*\(1, 2\)"):
        PolicyRunner.from_bytes(model_of(card=json.dumps(card)))
    del card["inputs"][1]
    with pytest.raises(PolicyRefused, match="input 'proprio': the card says nothing"):
        PolicyRunner.from_bytes(model_of(card=json.dumps(card)))


def test_a_spec_that_the_graph_does_not_fit_is_refused(model_of, runner):
    images = {"image": ImageSpec(height=8, width=8, channels=1)}
    with pytest.raises(PolicyRefused, match="input 'image': the spec wants"):
        PolicyRunner.from_bytes(model_of(spec=runner.spec.model_copy(update={"images": images})))
    action = ActionSpec(low=(0.0, 0.0), high=(1.0, 1.0))
    with pytest.raises(PolicyRefused, match="input 'prev_action': the spec wants"):
        PolicyRunner.from_bytes(model_of(spec=runner.spec.model_copy(update={"action": action})))


def test_a_carry_whose_output_differs_from_its_input_is_refused(model_of):
    with pytest.raises(PolicyRefused, match="carry 'count'"):
        PolicyRunner.from_bytes(model_of(carry=(CarryPair(input="count", output="value"),)))
    with pytest.raises(PolicyRefused, match="inputs: expected"):
        PolicyRunner.from_bytes(model_of(carry=()))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": 4}, "version: the manifest says 4, the policy's card says 3"),
        ({"weights_sha256": "ab"}, "weights_sha256: the manifest says ab"),
        ({"policy": blob_of("other.onnx", b"x")}, "describes 'other.onnx'"),
    ],
)
def test_a_manifest_that_differs_from_the_policy_is_refused(tmp_path, write, change, said):
    with pytest.raises(PolicyRefused, match=said):
        PolicyRunner.load(write(tmp_path / "policy", **change))


def test_a_manifest_cannot_name_a_file_elsewhere(folder):
    path = folder / "policy.manifest.json"
    path.write_text(path.read_text().replace("policy.golden.npz", "../policy.golden.npz"))
    with pytest.raises(PolicyRefused, match="expected a plain file name"):
        PolicyRunner.load(folder)


def test_weights_outside_the_file_are_never_read(model_of, tmp_path, monkeypatch):
    """A model that points at a file beside it: from bytes there is no beside."""
    model = onnx.load_model_from_string(model_of())
    tensor = next(t for t in model.graph.initializer if t.name == "tenth")
    del tensor.float_data[:]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", "secret.bin"), ("offset", "0"), ("length", "4")):
        tensor.external_data.add(key=key, value=value)
    (tmp_path / "secret.bin").write_bytes(np.float32(0.1).tobytes())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PolicyRefused, match="external data"):
        PolicyRunner.from_bytes(model.SerializeToString())


def test_control_flow_is_refused(model_of, graph):
    branch = "b () => (float[1,1] y) { y = Identity(wanted) }"
    either = f"either = If<then_branch = {branch}, else_branch = {branch}>(is_first)"
    once = graph.replace("near =", f"{either}\n    near =")
    with pytest.raises(PolicyRefused, match="subgraphs"):
        PolicyRunner.from_bytes(model_of(graph=once))


def test_operators_of_other_domains_are_refused(model_of):
    model = onnx.load_model_from_string(model_of())
    model.graph.node[3].domain = "com.example"
    with pytest.raises(PolicyRefused, match=r"'ReduceSum' of 'com\.example'"):
        PolicyRunner.from_bytes(model.SerializeToString())


def test_functions_are_refused(model_of):
    model = onnx.load_model_from_string(model_of())
    model.functions.add(name="f", domain="local")
    with pytest.raises(PolicyRefused, match="functions"):
        PolicyRunner.from_bytes(model.SerializeToString())


def test_random_bytes_are_refused_as_a_policy():
    rng = np.random.default_rng(0)
    for size in rng.integers(0, 200, 300):
        with pytest.raises(PolicyRefused):
            PolicyRunner.from_bytes(rng.bytes(int(size)))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seen/image": np.zeros((4, 4, 1), np.uint8)}, "preprocessing of 'image' differs"),
        ({"frame/image": np.zeros((2, 2, 1), np.uint8)}, "golden frame of 'image'"),
        ({"out/command": np.zeros((12, 1), np.float32)}, "golden step 0: 'command' differs"),
        ({"out/value": np.full(12, np.nan, np.float32)}, "'value' differs by nan"),
        ({"out/action": np.zeros((3, 1), np.float32)}, "golden"),
        ({"in/image": np.zeros((12, 5, 4, 1), np.uint8)}, "golden"),
        ({"in/is_first": np.zeros(0, bool)}, "golden rollout is empty"),
    ],
)
def test_a_policy_that_acts_differently_here_is_refused(tmp_path, write, golden_of, change, said):
    folder = write(tmp_path / "policy", golden=golden_of(**change))
    with pytest.raises(PolicyRefused, match=said):
        PolicyRunner.load(folder)
    PolicyRunner.load(folder, verify_golden=False)


@pytest.mark.parametrize("golden", [b"PK\x03\x04 no", b"not an archive", b"\x80\x04]\x94."])
def test_a_golden_rollout_that_is_no_archive_is_refused(tmp_path, write, golden):
    with pytest.raises(PolicyRefused, match="golden rollout is not readable"):
        PolicyRunner.load(write(tmp_path / "policy", golden=golden))


def test_a_golden_rollout_is_never_unpickled(tmp_path, write, golden_of):
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=True, **{"frame/image": np.array([{}], dtype=object)})
    with pytest.raises(PolicyRefused, match="not readable"):
        PolicyRunner.load(write(tmp_path / "policy", golden=buffer.getvalue()))


def test_an_incomplete_golden_rollout_is_refused_naming_what_it_lacks(tmp_path, write):
    buffer = io.BytesIO()
    np.savez(buffer, something=np.zeros(1))
    with pytest.raises(PolicyRefused, match="golden rollout lacks 'frame/image'"):
        PolicyRunner.load(write(tmp_path / "policy", golden=buffer.getvalue()))


@pytest.mark.parametrize(("gap", "refused"), [(1e-6, False), (0.5, True)])
def test_a_draw_may_differ_only_at_a_tie(tmp_path, write, golden_of, gap, refused):
    counts = read_golden(golden_of())["out/next_count"].copy()
    counts[4] += 1  # step 4 ends an episode, so that nothing carries on from it
    gaps = np.full((12, 1), 9.0, np.float32)
    gaps[4] = gap
    golden = golden_of(**{"out/next_count": counts, "gap/next_count": gaps})
    folder = write(tmp_path / "policy", golden=golden)
    if refused:
        with pytest.raises(PolicyRefused, match="golden step 4: 'next_count' was drawn differ"):
            PolicyRunner.load(folder)
    else:
        PolicyRunner.load(folder)


def test_a_policy_that_does_not_run_here_is_refused(
    tmp_path, write, golden_of, model_of, picky_graph
):
    golden = golden_of()
    model = model_of(graph=picky_graph, golden_sha256=hashlib.sha256(golden).hexdigest())
    with pytest.raises(PolicyRefused, match="golden rollout: policy does not run"):
        PolicyRunner.load(write(tmp_path / "picky", golden=golden, model=model))


def test_a_refused_file_leaves_the_running_policy_alone(folder, runner):
    engine = PolicyEngine(runner, seed=0, mean=True)
    obs, sent = runner.spec.zeros(), np.zeros(1, np.float32)
    engine.act(obs, sent, True)
    (folder / "policy.onnx").write_bytes(b"broken")
    with pytest.raises(PolicyRefused):
        PolicyRunner.load(folder)
    assert engine.act(obs, sent, False).value == 2


# ------------------------------------------------------- a card that is not its graph's, re-hashed


def action_of(runner, **changes):
    action = runner.spec.action.model_copy(update=changes)
    return {"spec": runner.spec.model_copy(update={"action": action})}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"low": (0.0,), "high": (40.0,)}, r"command .* is not the action"),
        ({"low": (-4.0,), "high": (4.0,)}, r"command .* is not the action"),
        ({"max_change": 0.2}, r"moved by 0\.5 in one step, the card says by at most 0\.2"),
        ({"names": ("left", "right")}, r"names of the action: expected 1 or none"),
        ({"units": ("m/s", "m/s")}, r"units of the action: expected 1 or none"),
    ],
)
@pytest.mark.parametrize("verify_golden", [True, False])
def test_limits_that_are_not_the_graphs_are_refused_though_every_hash_fits(
    tmp_path, write, golden_of, model_of, runner, changes, said, verify_golden
):
    golden = golden_of()
    told = hashlib.sha256(golden).hexdigest()
    model = model_of(golden_sha256=told, **action_of(runner, **changes))
    folder = write(tmp_path / "edited", golden=golden, model=model)
    with pytest.raises(PolicyRefused, match=said):
        PolicyRunner.load(folder, verify_golden=verify_golden)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"period_s": 0.2}, r"spec 'period_s': exported with 0\.1, the card says 0\.2"),
        ({"action": {"max_change": 0.9}}, r"spec 'action\.max_change': exported with 0\.5"),
        ({"action": {"names": ("throttle",)}}, r"spec 'action\.names': exported with \(\)"),
    ],
)
def test_a_card_edited_after_the_export_is_refused(
    tmp_path, write, golden_of, model_of, runner, change, said
):
    exported = runner.spec.model_dump_json().encode()
    golden = golden_of(spec=np.frombuffer(exported, np.uint8))
    told = hashlib.sha256(golden).hexdigest()
    PolicyRunner.load(
        write(tmp_path / "as_exported", golden=golden, model=model_of(golden_sha256=told))
    )
    if "action" in change:
        change = action_of(runner, **change["action"])["spec"].model_dump(include={"action"})
    spec = runner.spec.model_validate({**runner.spec.model_dump(), **change})
    model = model_of(golden_sha256=told, spec=spec)
    with pytest.raises(PolicyRefused, match=said):
        PolicyRunner.load(write(tmp_path / "edited", golden=golden, model=model))


def test_weights_that_are_not_those_of_the_card_are_refused(tmp_path, write, golden_of, model_of):
    golden = golden_of()
    about = {"golden_sha256": hashlib.sha256(golden).hexdigest(), "exporter": {"torch": "2"}}
    for weights, refused in ((weights_hash(model_of()), False), ("ab" * 32, True)):
        model = model_of(weights_sha256=weights, **about)
        folder = write(tmp_path / "policy", golden=golden, model=model, weights_sha256=weights)
        if refused:
            with pytest.raises(PolicyRefused, match="weights: expected sha256 abab"):
                PolicyRunner.load(folder)
        else:
            PolicyRunner.load(folder)


def test_noise_is_told_apart_by_its_name_and_not_by_its_place(tmp_path, model_of):
    turned = PolicyRunner.from_bytes(model_of(noise=("noise_action", "noise_latent")))
    engine = PolicyEngine(turned, seed=0, mean=True)
    outs = [engine.act(turned.spec.zeros(), np.zeros(1, np.float32), True) for _ in range(3)]
    assert len({out.action.item() for out in outs}) == 1
    assert len({out.surprise for out in outs}) == 3


def test_noise_of_an_unknown_role_is_refused(model_of, graph):
    renamed = graph.replace("noise_latent", "noise_other")
    with pytest.raises(PolicyRefused, match=r"noise: expected .*noise_other"):
        PolicyRunner.from_bytes(model_of(graph=renamed, noise=("noise_other", "noise_action")))


# ------------------------------------------------------------------------- files of hostile shape


def test_a_weight_that_claims_more_than_it_holds_is_refused(model_of):
    model = onnx.load_model_from_string(model_of())
    tensor = next(t for t in model.graph.initializer if t.name == "tenth")
    tensor.dims.extend([1 << 40, 1 << 20])
    with pytest.raises(PolicyRefused, match="a weight says it has"):
        PolicyRunner.from_bytes(model.SerializeToString())


def test_a_golden_rollout_that_unpacks_to_too_much_is_refused_unread(
    tmp_path, write, golden_of, monkeypatch
):
    monkeypatch.setattr("wm_core.contract.golden_archive.MAX_UNPACKED_BYTES", 1_000_000)
    golden = golden_of(more=np.zeros(1_000_000, np.uint8))
    assert len(golden) < 100_000
    with pytest.raises(PolicyRefused, match="at most 1000000 bytes, unpacked it has 1"):
        PolicyRunner.load(write(tmp_path / "policy", golden=golden))


@pytest.mark.parametrize("shape", ["(99999999999999,)", "(4, -1)", "(2**9,)"])
def test_a_golden_rollout_with_an_absurd_header_is_refused(tmp_path, write, shape):
    header = f"{{'descr': '|b1', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    entry = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("in/is_first.npy", entry)
    with pytest.raises(PolicyRefused, match="golden rollout is not readable"):
        PolicyRunner.load(write(tmp_path / "policy", golden=buffer.getvalue()))


def test_a_small_policy_loads_where_memory_is_short(folder):
    resource = pytest.importorskip("resource", reason="this system cannot bound a process")
    statm = Path("/proc/self/statm")
    if not statm.exists():
        pytest.skip("this system cannot bound a process")
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    now = int(statm.read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + 600_000_000, hard))
    try:
        PolicyRunner.load(folder)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
