"""Robot and trainer over real ROS and real HTTP: policies come, experience goes, none is lost."""

from __future__ import annotations

import json
import socket
import subprocess
import sys

import pytest

from wm_core.link.audit import audit
from wm_core.link.trainer.policy_repository import PolicyRepository
from wm_core.link.trainer.tokens import add_token

pytestmark = pytest.mark.ros


@pytest.fixture
def service(processes, tmp_path):
    """Starts the trainer's service on one port, as often as asked."""
    pytest.importorskip("uvicorn", reason="needs the trainer's extra")
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    running = []

    def start(*more: str) -> tuple[str, subprocess.Popen]:
        argv = ["-m", "wm_core.cli", "serve", "--root", str(tmp_path / "run"), "--port", str(port)]
        argv += more
        with (tmp_path / "service.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, *argv], env=processes.env, stdout=log, stderr=log
            )
        running.append(process)
        return f"http://127.0.0.1:{port}", process

    yield start
    for process in running:
        process.kill()
        process.wait()


def test_a_robot_lives_on_its_trainers_policies_and_loses_nothing_when_it_dies(
    processes, watcher, service, policy_at, report_of, tmp_path
):
    state = tmp_path / "state"
    repository = PolicyRepository(tmp_path / "run" / "policies")

    def publish(version: int, bias: float, updates: int) -> None:
        folder = policy_at(
            tmp_path / f"made{version}", version=version, bias=bias, learner_updates=updates
        )
        manifest = json.loads((folder / "policy.manifest.json").read_text())
        repository.publish(
            (folder / "policy.onnx").read_bytes(),
            (folder / "policy.golden.npz").read_bytes(),
            version=version,
            weights_sha256=manifest["weights_sha256"],
            learner_updates=updates,
        )

    def says(key: str, least: int) -> None:
        watcher.until(
            lambda: report_of(state / "status.json").get(key, -1) >= least, f"{key} {least}"
        )

    url, first = service()
    processes.start("sim_node", {"task": "counting_task:Counting-v0"})
    processes.start(
        "policy_node",
        {"state_dir": str(state), "trainer_url": url, "seal_steps": 16, "robot": "tester"},
    )
    says("safe_ticks", 5)  # no policy yet
    publish(0, 0.0, 0)
    says("chunks_acked", 2)
    first.kill()
    first.wait()
    says("chunks_sealed", report_of(state / "status.json")["chunks_sealed"] + 3)
    publish(1, 0.5, 80)
    service()
    says("policy_version", 1)
    says("steps_recorded", report_of(state / "status.json")["steps_recorded"] + 30)
    assert processes.stop("policy_node") == 0
    assert processes.stop("sim_node") == 0
    status = report_of(state / "status.json")
    account = audit(tmp_path / "run" / "store", [state / "spool"])
    assert account.chunks_lost == 0
    assert account.chunks_sent == account.chunks_acked + account.chunks_pending
    assert account.chunks_pending == 0  # stopping waits for the last acknowledgement
    assert account.steps_stored == status["steps_recorded"]
    assert status["swaps"] == 1


def test_a_robot_reaches_its_trainer_by_tls_with_its_token(
    processes, watcher, service, policy_at, report_of, tmp_path
):
    """With two connections of 300 kB/s in all, the parameters that the network's side adds."""
    trustme = pytest.importorskip("trustme")
    authority, state = trustme.CA(), tmp_path / "state"
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    pem = authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem
    pem.write_to_path(tmp_path / "service.pem")
    (tmp_path / "token").write_text(add_token(tmp_path / "tokens", "tester"))
    url, _ = service(
        *("--tls-cert", str(tmp_path / "service.pem"), "--tokens", str(tmp_path / "tokens"))
    )
    policy_at(tmp_path / "policy")
    processes.start("sim_node", {"task": "counting_task:Counting-v0"})
    processes.start(
        "policy_node",
        {
            "state_dir": str(state),
            "policy_dir": str(tmp_path / "policy"),
            "robot": "tester",
            "trainer_url": url.replace("http:", "https:"),
            "token_file": str(tmp_path / "token"),
            "ca_file": str(tmp_path / "ca.pem"),
            "proxy": "none",
            "spool.seal_steps": 8,
            "upload.connections": 2,
            "upload.bytes_per_s": 300_000.0,
        },
    )
    watcher.until(
        lambda: report_of(state / "status.json").get("chunks_acked", 0) >= 2, "chunks arrive"
    )
    stream = report_of(state / "status.json")["stream"]
    assert (stream["uploader_not_the_trainer"], stream["uploader_denied"]) == (0, 0)
    assert processes.stop("policy_node") == 0
