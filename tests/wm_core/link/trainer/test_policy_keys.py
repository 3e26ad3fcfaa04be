"""Keys are made once, kept from other users, rotated and revoked; the owner's may be elsewhere."""

from __future__ import annotations

import stat

import pytest

from wm_core.cli.main import main
from wm_core.contract.errors import PolicyRefused, SettingsError
from wm_core.contract.policy_folder import PolicyFolder
from wm_core.contract.signing import SecretKey, read_public_keys
from wm_core.contract.trust import Trust
from wm_core.link.trainer.policy_keys import (
    PolicyKeys,
    make_keys,
    read_keyring,
    revoke,
    rotate,
    sign_keyring,
)
from wm_core.link.trainer.policy_repository import PolicyRepository


@pytest.fixture
def keys(tmp_path):
    make_keys(tmp_path / "keys", "our lab")
    return tmp_path / "keys"


@pytest.fixture
def policy(tmp_path):
    folder = PolicyFolder(tmp_path / "policy")
    folder.write(b"onnx", b"golden", version=3)
    return folder


def trust(keys):
    return Trust(read_public_keys(keys / "owner.pub"))


def test_secrets_are_for_their_owner_alone_and_never_overwritten(keys):
    before = {path.name: path.read_bytes() for path in keys.iterdir()}
    assert sorted(before) == [
        "channel.key",
        "keyring.json",
        "owner.key",
        "owner.pub",
        "policy.key",
    ]
    for path in keys.glob("*.key"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not any(seed in before["keyring.json"] for seed in secrets_of(keys))
    with pytest.raises(SettingsError, match="never overwritten"):
        make_keys(keys)
    assert {path.name: path.read_bytes() for path in keys.iterdir()} == before


def secrets_of(keys):
    return [path.read_bytes().split()[2] for path in keys.glob("*.key")]


def test_a_policy_signed_by_hand_passes_and_one_of_a_revoked_key_does_not(keys, policy):
    robot = trust(keys)
    with pytest.raises(PolicyRefused, match="wm keys sign"):
        robot.check(policy)
    PolicyKeys(keys).endorse_folder(policy.path)
    assert robot.check(policy).version == 3
    first = PolicyKeys(keys).secret("policy").public
    rotate(keys, "policy")
    PolicyKeys(keys).endorse_folder(policy.path)  # now signed by both
    assert len(policy.read_signed()[1].signatures) == 2
    revoke(keys, first[:10])
    assert robot.check(policy).version == 3  # by the new key, whose keyring it has not seen
    PolicyKeys(keys).endorse_folder(policy.path)
    assert robot.check(policy).version == 3
    assert robot.keyring.number == 3
    assert first not in [s.key for s in policy.read_signed()[1].signatures]


def test_a_revoked_keys_policy_is_refused_once_the_robot_knows(keys, policy, tmp_path):
    PolicyKeys(keys).endorse_folder(policy.path)
    robot = trust(keys)
    assert robot.check(policy)
    first = PolicyKeys(keys).secret("policy").public
    rotate(keys, "policy")
    revoke(keys, first)
    newer = PolicyFolder(tmp_path / "newer")
    newer.write(b"onnx", b"golden", version=4)
    PolicyKeys(keys).endorse_folder(newer.path)
    assert robot.check(newer)
    with pytest.raises(PolicyRefused, match="a policy key"):
        robot.check(policy)


def test_a_manifest_that_does_not_fit_its_files_is_not_signed(keys, policy):
    policy.onnx.write_bytes(b"else")
    with pytest.raises(PolicyRefused, match="expected sha256"):
        PolicyKeys(keys).endorse_folder(policy.path)
    assert not policy.endorsement.exists()


def test_the_owners_key_can_stay_on_another_machine(keys, tmp_path, policy):
    stick = tmp_path / "stick"
    stick.mkdir()
    (keys / "owner.key").rename(stick / "owner.key")
    before = PolicyKeys(keys).secret("policy").public
    rotate(keys, "policy")
    assert PolicyKeys(keys).secret("policy").public == before  # nothing changes until it is signed
    with pytest.raises(SettingsError, match="still waits"):
        rotate(keys, "channel")
    sign_keyring(keys / "keyring.unsigned.json", stick)
    now = PolicyKeys(keys)
    assert now.secret("policy").public != before
    assert now.keyring.number == 2
    assert len(now.keyring.keys_for("policy")) == 2
    assert [path.name for path in keys.glob("*.old-*")] == [f"policy.key.old-{before[:12]}"]
    now.endorse_folder(policy.path)
    assert trust(keys).check(policy)


def test_a_keyring_of_another_owner_or_a_key_outside_it_is_refused(keys, tmp_path):
    make_keys(tmp_path / "others")
    mine = (keys / "keyring.json").read_bytes()
    (keys / "keyring.json").write_bytes((tmp_path / "others" / "keyring.json").read_bytes())
    with pytest.raises(SettingsError, match="the robot's owner"):
        PolicyKeys(keys)
    (keys / "keyring.json").write_bytes(mine)
    (keys / "policy.key").write_bytes((tmp_path / "others" / "policy.key").read_bytes())
    with pytest.raises(SettingsError, match="does not name this key"):
        PolicyKeys(keys)


def test_the_verb_makes_shows_signs_rotates_and_revokes(tmp_path, policy, capsys):
    keys = str(tmp_path / "keys")
    assert main(["keys", "make", keys, "--name", "lab"]) == 0
    assert main(["keys", "make", keys]) == 2
    assert "never overwritten" in capsys.readouterr().err
    assert main(["keys", "sign", str(policy.path), "--keys", keys]) == 0
    assert main(["keys", "rotate", keys, "--role", "channel"]) == 0
    key = read_keyring(tmp_path / "keys" / "keyring.json")[1].keys_for("channel")[0]
    assert main(["keys", "revoke", keys, key[:8]]) == 0
    assert main(["keys", "revoke", keys, "f" * 64]) == 2
    assert "expected the beginning of one key" in capsys.readouterr().err
    assert main(["keys", "show", keys]) == 0
    said = capsys.readouterr().out
    assert "number 3" in said
    assert f"channel  {key[:12]}" not in said
    assert not any(seed.decode() in said for seed in secrets_of(tmp_path / "keys"))


def test_nothing_of_a_folder_without_keys_is_used(tmp_path):
    with pytest.raises(SettingsError, match="wm keys make"):
        PolicyKeys(tmp_path)
    assert main(["keys", "show", str(tmp_path)]) == 2


def test_a_rotation_that_was_broken_off_is_finished_by_the_next(keys):
    new = SecretKey.make("policy")
    (keys / "policy.key.new").write_text(new.text())  # killed before the keyring was written
    (keys / "policy.key.new").chmod(0o600)
    rotate(keys, "policy")
    assert PolicyKeys(keys).secret("policy").public == new.public
    assert not (keys / "policy.key.new").exists()
    assert len(PolicyKeys(keys).keyring.keys_for("policy")) == 2


def test_a_learner_whose_key_was_taken_away_goes_on_without_a_signature(keys, tmp_path, caplog):
    held, repository = PolicyKeys(keys), PolicyRepository(tmp_path / "policies")
    repository.publish(b"0", b"golden", version=0, keys=held)
    assert PolicyFolder(repository.folder(0)).endorsement.exists()
    revoke(keys, held.secret("policy").public)
    repository.publish(b"1", b"golden", version=1, keys=held)
    assert repository.latest().version == 1
    assert not PolicyFolder(repository.folder(1)).endorsement.exists()
    assert "without a signature" in caplog.text
    rotate(keys, "policy")
    repository.publish(b"2", b"golden", version=2, keys=held)
    assert trust(keys).check(PolicyFolder(repository.folder(2))).version == 2
