import hashlib
import json

import pytest

from wm_core.contract.card import (
    Blob,
    CarryPair,
    Deviation,
    Manifest,
    PolicyCard,
    ReturnLoss,
    TensorInfo,
    Tolerance,
    check_bytes,
)
from wm_core.contract.errors import PolicyRefused
from wm_core.contract.spec import ActionSpec, Spec

DATA = b"weights"
BLOB = Blob(name="policy.onnx", sha256=hashlib.sha256(DATA).hexdigest(), bytes=len(DATA))


def test_the_bytes_that_a_blob_names_pass():
    check_bytes(DATA, BLOB)


def test_one_flipped_bit_is_refused():
    with pytest.raises(PolicyRefused, match="expected sha256"):
        check_bytes(b"weightr", BLOB)


def test_a_truncated_file_is_refused_by_its_length():
    with pytest.raises(PolicyRefused, match="expected 7 bytes, got 6"):
        check_bytes(DATA[:-1], BLOB)


def test_a_manifest_survives_json():
    manifest = Manifest(version=3, policy=BLOB, golden=BLOB)
    assert Manifest.parse(manifest.model_dump_json()) == manifest


@pytest.mark.parametrize(
    "text", ["", "{}", "[1]", '{"manifest_version": 2}', b"\xff\x00", '{"version": 0'[:5]]
)
def test_a_malformed_manifest_is_refused(text):
    with pytest.raises(PolicyRefused, match="manifest"):
        Manifest.parse(text)


def test_a_card_of_another_version_is_refused():
    with pytest.raises(PolicyRefused, match="card does not fit version 1"):
        PolicyCard.parse('{"card_version": 2}')


FIRST_FIELDS = {
    "card_version", "preset", "size", "task", "spec", "inputs", "outputs", "carry", "noise",
    "max_obs_age_s", "version", "learner_updates", "agent_steps", "run_id", "commit",
    "weights_sha256", "golden_sha256", "opset", "exporter", "created",
}  # fmt: skip


def card(**fields):
    info = TensorInfo(name="image", dtype="uint8", shape=(1, 64, 64, 3))
    spec = Spec(action=ActionSpec(low=(-1.0,), high=(1.0,)))
    pair = CarryPair(input="deter", output="next_deter")
    about = {"inputs": (info,), "outputs": (), "carry": (pair,), "max_obs_age_s": 0.1}
    return PolicyCard(preset="p", size="s", spec=spec, version=0, **about, **fields)


def test_a_card_says_nothing_of_later_fields_that_are_not_set():
    text = card().model_dump_json()
    assert {*json.loads(text)} == FIRST_FIELDS
    assert PolicyCard.parse(text) == card()


def test_every_later_field_survives_json():
    full = card(
        tolerance=Tolerance(largest=0.1, mean=0.01),
        quantized="int8",
        return_loss=ReturnLoss(
            loss=0.01, low=-0.01, high=0.03, episodes=20, original=9.9, quantized=9.8, scale=9.9
        ),
        action_deviation=Deviation(mean=0.01, largest=0.1, steps=300),
        surprise_limit=12.5,
        split=(TensorInfo(name="deter", dtype="float32", shape=(1, 8)),),
        frame_id="base_link",
        resize={"image": "area"},
    )
    assert {*json.loads(full.model_dump_json())} > FIRST_FIELDS
    assert PolicyCard.parse(full.model_dump_json()) == full


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-1", "0"])
def test_a_limit_that_is_no_limit_is_refused(number):
    text = card(surprise_limit=0.25).model_dump_json().replace("0.25", number)
    with pytest.raises(PolicyRefused, match="surprise_limit"):
        PolicyCard.parse(text)
    text = card(tolerance=Tolerance(largest=0.25, mean=0.25)).model_dump_json()
    with pytest.raises(PolicyRefused, match="tolerance"):
        PolicyCard.parse(text.replace("0.25", number))
