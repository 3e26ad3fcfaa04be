import hashlib

import pytest

from wm_core.contract.card import Blob, Manifest, PolicyCard, check_bytes
from wm_core.contract.errors import PolicyRefused

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
