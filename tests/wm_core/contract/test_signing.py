"""A signature covers the exact bytes and their purpose; key files say what is wrong with them."""

from __future__ import annotations

import json

import pytest

from wm_core.contract.errors import PolicyRefused, SettingsError
from wm_core.contract.signing import (
    MAX_DOCUMENT_BYTES,
    SecretKey,
    Signature,
    Signed,
    read_public_keys,
    require,
    seal,
    signers,
)


@pytest.fixture(scope="module")
def key():
    return SecretKey.make("policy", "trainer")


def test_every_flipped_bit_of_document_or_signature_is_noticed(key):
    content = b'{"version": 3}'
    signature = key.sign("manifest", content)
    assert signers("manifest", content, [signature], [key.public]) == [key.public]
    for place in range(len(content) * 8):
        changed = bytearray(content)
        changed[place // 8] ^= 1 << place % 8
        assert not signers("manifest", bytes(changed), [signature], [key.public])
    for place in range(64 * 8):
        changed = bytearray.fromhex(signature.sig)
        changed[place // 8] ^= 1 << place % 8
        wrong = Signature(key=key.public, sig=changed.hex())
        assert not signers("manifest", content, [wrong], [key.public])


def test_a_document_of_one_kind_is_no_document_of_another(key):
    signature = key.sign("manifest", b"{}")
    with pytest.raises(PolicyRefused, match="does not fit its bytes"):
        require("statement", b"{}", [signature], [key.public], "a channel key")


def test_keys_that_fit_any_message_are_refused():
    small_order = [bytes(32), bytes([1]) + bytes(31), bytes.fromhex("ec" + "ff" * 30 + "7f")]
    for point in small_order:
        for r in (point, bytes(32)):
            forged = Signature(key=point.hex(), sig=(r + bytes(32)).hex())
            assert not signers("manifest", b"{}", [forged], [point.hex()])


def test_a_second_signature_of_the_same_bytes_cannot_be_derived(key):
    order = 2**252 + 27742317777372353535851937790883648493
    signature = bytes.fromhex(key.sign("manifest", b"{}").sig)
    s = int.from_bytes(signature[32:], "little") + order
    other = Signature(key=key.public, sig=(signature[:32] + s.to_bytes(32, "little")).hex())
    assert not signers("manifest", b"{}", [other], [key.public])


def test_one_right_signature_among_several_is_enough(key):
    other = SecretKey.make("policy")
    both = seal("manifest", "{}", [other, key])
    assert require("manifest", b"{}", both.signatures, [key.public], "x") == key.public
    with pytest.raises(PolicyRefused, match="expected a signature by x"):
        require("manifest", b"{}", both.signatures, [], "x")


def test_a_sealed_document_keeps_its_exact_text(key):
    text = '{"b": 1.0,\n "a":  "\\u00e9 é"}'
    again = Signed.parse(seal("manifest", text, [key]).model_dump_json())
    assert again.content == text.encode()
    assert signers("manifest", again.content, again.signatures, [key.public])


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"{}",
        b"[" * 100_000,
        b'{"document": "x", "signatures": []}',
        b'{"document": "\xff", "signatures": []}',
        b'{"document": "\\ud800", "signatures": [{"key": "' + b"0" * 64 + b'", "sig": "'
        + b"0" * 128 + b'"}]}',
        json.dumps({"document": "x", "signatures": [{"key": "0", "sig": "0"}] * 9}).encode(),
        b'{"document": "' + b"x" * MAX_DOCUMENT_BYTES + b'"}',
        b'{"document": 1e999, "signatures": 9e9999}',
    ],
)  # fmt: skip
def test_what_is_no_signed_document_is_refused_in_a_short_line(text):
    with pytest.raises(PolicyRefused) as error:
        Signed.parse(text)
    assert len(str(error.value)) < 400


def test_a_secret_key_lives_in_a_file_that_only_its_owner_reads(key, tmp_path):
    path = tmp_path / "policy.key"
    path.write_text(key.text())
    path.chmod(0o640)
    with pytest.raises(SettingsError, match="chmod 600"):
        SecretKey.load(path)
    path.chmod(0o600)
    again = SecretKey.load(path, "policy")
    assert (again.public, again.role, again.name) == (key.public, "policy", "trainer")
    with pytest.raises(SettingsError, match="expected a key for 'owner'"):
        SecretKey.load(path, "owner")


def test_a_file_of_trusted_keys_that_cannot_be_used_is_named(key, tmp_path):
    path = tmp_path / "trusted_keys"
    for text, word in (
        (key.text(), "SECRET"),
        ("# nothing\n", "at least one"),
        ("rover abc\n", ":1: expected a public key"),
        ("0" * 100_000, "64 kB"),
        ("\xff", "expected a public key"),
    ):
        path.write_text(text)
        with pytest.raises(SettingsError, match=word):
            read_public_keys(path)
    with pytest.raises(SettingsError, match="cannot be read"):
        read_public_keys(tmp_path / "missing")
    path.write_text(f"# the owner\n{key.public}  our lab\n")
    assert read_public_keys(path) == {key.public: "our lab"}
