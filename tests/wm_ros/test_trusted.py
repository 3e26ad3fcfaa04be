"""Whose policies a robot runs: the rule of its parameters, for its own folder and a trainer."""

from __future__ import annotations

from functools import partial

import pytest

from wm_core.contract.errors import PolicyRefused, SettingsError
from wm_core.contract.policy_folder import PolicyFolder
from wm_core.contract.runner import PolicyRunner
from wm_core.contract.signing import SecretKey
from wm_core.contract.trust import Trust
from wm_core.link.trainer.policy_keys import PolicyKeys, make_keys
from wm_ros.policies.slot import PolicySlot
from wm_ros.policies.source import FolderSource
from wm_ros.policies.trusted import open_trusted, running_of, trust_of
from wm_ros.settings import PolicySettings, SlotSettings

HERE, AWAY = "http://127.0.0.1:8765", "https://trainer.example:8765"


@pytest.fixture
def keys(tmp_path):
    make_keys(tmp_path / "keys")
    return tmp_path / "keys"


@pytest.mark.parametrize(
    ("settings", "needed"),
    [
        ({"trainer_url": HERE}, False),
        ({"trainer_url": "http://localhost:1"}, False),
        ({"trainer_url": "http://[::1]:1"}, False),
        ({"policy_dir": "policy"}, False),
        ({"policy_dir": "policy", "trainer_url": AWAY}, False),
        ({"trainer_url": "file:///media/usb/wm"}, False),
        ({"trainer_url": AWAY}, True),
        ({"trainer_url": "http://127.0.0.1.example:1"}, True),
        ({"trainer_url": "http://10.0.0.2:1"}, True),
        ({"trainer_url": AWAY, "require_signature": "never"}, False),
        ({"policy_dir": "policy", "require_signature": "always"}, True),
        ({"trainer_url": HERE, "require_signature": "always"}, True),
    ],
)
def test_without_keys_only_what_comes_from_this_machine_is_run(tmp_path, settings, needed):
    trust = trust_of(PolicySettings(**settings), tmp_path)
    assert (trust is not None) == needed
    if trust is not None:
        with pytest.raises(PolicyRefused, match="trusted_keys"):
            trust.check(PolicyFolder(tmp_path))


@pytest.mark.parametrize("source", [{"trainer_url": HERE}, {"policy_dir": "x"}, {}])
def test_with_keys_every_policy_is_held_to_them_unless_never_is_said(tmp_path, keys, source):
    settings = PolicySettings(trusted_keys=str(keys / "owner.pub"), **source)
    assert list(trust_of(settings, tmp_path).owners)
    off = settings.model_copy(update={"require_signature": "never"})
    assert trust_of(off, tmp_path) is None


def test_a_file_of_keys_that_cannot_be_used_stops_the_start(tmp_path, keys):
    for name, word in (("missing", "cannot be read"), ("keys/policy.key", "SECRET")):
        settings = PolicySettings(trusted_keys=str(tmp_path / name))
        with pytest.raises(SettingsError, match=word):
            trust_of(settings, tmp_path)


@pytest.fixture
def slot_of(tmp_path, keys):
    def make(home):
        settings = PolicySettings(trusted_keys=str(keys / "owner.pub"), policy_dir=str(home))
        opens = partial(open_trusted, trust=trust_of(settings, tmp_path))
        return PolicySlot(FolderSource(home), SlotSettings(), opens=opens)

    return make


def version_of(slot):
    slot.look()
    slot.between_ticks()
    return None if slot.runner is None else slot.runner.card.version


def test_a_policy_copied_by_hand_runs_once_its_signature_is_there(
    tmp_path, keys, policy_at, slot_of
):
    home = tmp_path / "policies"
    folder = policy_at(home / "00000001", version=1)
    slot = slot_of(home)
    assert version_of(slot) is None
    assert "wm keys sign" in slot.refusals[-1]
    PolicyKeys(keys).endorse_folder(folder)
    assert version_of(slot) == 1
    assert running_of(slot.runner).version == 1
    forged = policy_at(home / "00000002", version=2)
    signature = SecretKey.make("policy").sign(
        "manifest", PolicyFolder(forged).manifest.read_bytes()
    )
    text = PolicyFolder(folder).read_signed()[1].model_copy(update={"signatures": (signature,)})
    PolicyFolder(forged).endorsement.write_text(text.model_dump_json())
    assert version_of(slot) == 1
    assert "a policy key" in slot.refusals[-1]


def test_an_older_keyring_on_a_stick_brings_no_revoked_key_back(
    tmp_path, keys, policy_at, slot_of
):
    from wm_core.link.trainer.policy_keys import revoke, rotate

    home = tmp_path / "policies"
    old = policy_at(tmp_path / "stick", version=1)
    PolicyKeys(keys).endorse_folder(old)
    before = PolicyKeys(keys).secret("policy").public
    rotate(keys, "policy")
    revoke(keys, before)
    PolicyKeys(keys).endorse_folder(policy_at(home / "00000002", version=2))
    assert version_of(slot_of(home)) == 2  # the robot has now seen keyring 3
    again = slot_of(old)
    assert version_of(again) is None
    assert "a policy key" in again.refusals[-1]


def test_a_manifest_that_is_exchanged_while_it_is_opened_is_refused(
    tmp_path, keys, policy_at, monkeypatch
):
    folder = policy_at(tmp_path / "policy", version=1)
    PolicyKeys(keys).endorse_folder(folder)
    other = policy_at(tmp_path / "other", version=2)
    trust = trust_of(PolicySettings(trusted_keys=str(keys / "owner.pub")), tmp_path)

    def check_then_exchange(found):
        manifest = Trust.check(trust, found)
        for name in ("policy.onnx", "policy.golden.npz", "policy.manifest.json"):
            (folder / name).write_bytes((other / name).read_bytes())
        return manifest

    monkeypatch.setattr(trust, "check", check_then_exchange)
    with pytest.raises(PolicyRefused, match="exchanged"):
        open_trusted(folder, trust)
    assert PolicyRunner.open(folder).card.version == 2


def test_the_doctor_says_who_must_sign_and_whether_that_is_so(tmp_path, keys, policy_at):
    from wm_ros.doctor.machine import keys as examine

    folder, trusted = policy_at(tmp_path / "policy"), str(keys / "owner.pub")

    def said(**settings):
        found = examine(PolicySettings(**settings))
        return [(result.level, result.text) for result in found]

    assert said(trainer_url=HERE) == []
    [(level, text)] = said(trainer_url=AWAY)
    assert (level, "no key is trusted" in text) == ("FAIL", True)
    [(level, _)] = said(trainer_url=AWAY, require_signature="never")
    assert level == "WARN"
    [(level, text)] = said(policy_dir=str(folder), trusted_keys=trusted)
    assert (level, "policy.manifest.sig.json" in text) == ("FAIL", True)
    PolicyKeys(keys).endorse_folder(folder)
    [(level, _)] = said(policy_dir=str(folder), trusted_keys=trusted)
    assert level == "OK"
