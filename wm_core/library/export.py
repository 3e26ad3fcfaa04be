"""The newest policy of a run as one ONNX file with the golden rollout that proves it."""

from __future__ import annotations

from pathlib import Path

from wm_core.contract.errors import StoreError
from wm_core.contract.policy_folder import PolicyFolder
from wm_core.contract.runner import PolicyRunner
from wm_core.exporting.exporter import Export, PolicyExporter
from wm_core.library.run_folder import run_id_of
from wm_core.link.trainer.policy_repository import PolicyRepository
from wm_core.training.checkpoint import Trained, load_agent
from wm_core.training.provenance import commit


def export(run: str | Path, to: str | Path, *, golden_steps: int = 200) -> PolicyRunner:
    """Write the policy in the newest checkpoint of ``run`` into the folder ``to``.

    Args:
        run: the run folder of a training.
        to: receives policy.onnx, policy.golden.npz and policy.manifest.json.
        golden_steps: length of the rollout that proves the file.

    Returns:
        The policy, loaded from ``to`` and proved as a robot would.

    Raises:
        StoreError: where the run has no checkpoint or ``to`` cannot be written.
    """
    run, to = Path(run), Path(to)
    trained = load_agent(run)
    exporter = PolicyExporter(
        trained.agent,
        trained.spec,
        trained.config,
        run_id=run_id_of(run),
        commit=commit(),
        task=trained.task,
    )
    version = _version(run, trained)
    made = exporter.export(version, trained.updates, trained.agent_steps, golden_steps)
    return write_policy(to, made, version=version, learner_updates=trained.updates)


def write_policy(to: Path, export: Export, *, version: int, learner_updates: int) -> PolicyRunner:
    """Write a policy folder durably; returns the policy, loaded from there and proved."""
    try:
        PolicyFolder(to).write(*export, version=version, learner_updates=learner_updates)
    except OSError as error:
        raise StoreError(f"cannot write the policy to {to}: {error.strerror}") from error
    return PolicyRunner.load(to)


def _version(run: Path, trained: Trained) -> int:
    """The number under which the run published this policy, or would publish it next."""
    last = PolicyRepository(run / "policies").latest()
    if last is None:
        return min(trained.updates, 1)
    return last.version + (last.learner_updates != trained.updates)
