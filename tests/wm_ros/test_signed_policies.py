"""A robot with its owner's key and a real trainer, over HTTP and ROS: what runs, and what not."""

from __future__ import annotations

import subprocess
import sys

import pytest

from wm_core.cli.main import main
from wm_core.contract.policy_folder import PolicyFolder
from wm_core.contract.releases import Endorsement
from wm_core.link.trainer.policy_keys import PolicyKeys, make_keys, revoke, rotate
from wm_core.link.trainer.policy_repository import PolicyRepository

pytestmark = pytest.mark.ros


@pytest.fixture
def keys(tmp_path):
    make_keys(tmp_path / "keys")
    return tmp_path / "keys"


@pytest.fixture
def trainer(processes, tmp_path, keys):
    """Address of a signing service; its log lies in ``service.log``."""
    pytest.importorskip("uvicorn", reason="needs the trainer's extra")
    argv = ["serve", "--root", str(tmp_path / "run"), "--port", "0", "--policy-keys", str(keys)]
    with (tmp_path / "service.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "wm_core.cli", *argv],
            env=processes.env,
            stdout=log,
            stderr=log,
        )
    yield tmp_path / "run" / "service.json"
    process.kill()
    process.wait()


@pytest.fixture
def publish(tmp_path, policy_at, keys):
    repository = PolicyRepository(tmp_path / "run" / "policies")

    def put(version, sign=True):
        folder = policy_at(tmp_path / f"made{version}", version=version, learner_updates=50)
        manifest = PolicyFolder(folder).read_manifest()
        repository.publish(
            (folder / "policy.onnx").read_bytes(),
            (folder / "policy.golden.npz").read_bytes(),
            version=version,
            keys=PolicyKeys(keys) if sign else None,
            weights_sha256=manifest.weights_sha256,
            learner_updates=50,
        )
        return PolicyFolder(repository.folder(version))

    return put


def test_only_signed_policies_run_and_the_trainer_rolls_back(
    processes, watcher, trainer, publish, keys, report_of, tmp_path
):
    state, run = tmp_path / "state", str(tmp_path / "run")

    def says(condition, what):
        watcher.until(lambda: condition(report_of(state / "status.json")), what)

    def error(report):
        return str(report.get("stream", {}).get("policies_last_error", ""))

    watcher.until(trainer.exists, "the service listens")
    publish(0, sign=False)
    processes.start("sim_node", {"task": "counting_task:Counting-v0"})
    parameters = {
        "state_dir": str(state),
        "trainer_url": report_of(trainer)["url"],
        "robot": "tester",
        "trusted_keys": str(keys / "owner.pub"),
        "delivery.backoff_most_s": 0.5,
        "delivery.wait_s": 1.0,
    }
    processes.start("policy_node", parameters)
    says(lambda r: "wm keys sign" in error(r), "the unsigned policy is refused")
    assert report_of(state / "status.json")["policy_version"] == -1
    publish(1)
    says(lambda r: r.get("policy_version") == 1, "the signed policy runs")
    publish(2)
    says(lambda r: r.get("policy_version") == 2, "the next one runs")
    assert main(["policy", "rollback", "--root", run]) == 0
    says(lambda r: r.get("policy_version") == 1, "the one before runs again")
    stolen = PolicyKeys(keys)
    secret = stolen.secret("policy")
    rotate(keys, "policy")
    revoke(keys, secret.public)
    forged = publish(3, sign=False)
    endorsement = Endorsement(
        signatures=(secret.sign("manifest", forged.manifest.read_bytes()),), keyring=stolen.signed
    )
    forged.endorsement.write_text(endorsement.model_dump_json())
    assert main(["policy", "follow", "--root", run]) == 0
    says(lambda r: "a policy key" in error(r), "the revoked key's policy is refused")
    assert report_of(state / "status.json")["policy_version"] == 1
    publish(4)
    says(lambda r: r.get("policy_version") == 4, "the new key's policy runs")
    running = tmp_path / "run" / "policies" / "robots.json"
    watcher.until(lambda: report_of(running).get("tester", {}).get("version") == 4, "it is told")
    said = processes.said("policy_node")
    assert processes.stop("policy_node") == 0
    assert "Traceback" not in said
