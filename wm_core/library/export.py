"""The newest policy of a run as one ONNX file with the golden rollout that proves it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from wm_core.contract.card import PolicyCard
from wm_core.contract.errors import SettingsError, StoreError, WmError
from wm_core.contract.policy_folder import ONNX_NAME, PolicyFolder
from wm_core.contract.runner import PolicyRunner
from wm_core.contract.spec import Spec
from wm_core.exporting.eight_bits import make_int8
from wm_core.exporting.exporter import Export, PolicyExporter
from wm_core.exporting.leapp import write_bundle
from wm_core.exporting.stored import replay, stored_steps, surprise_limit
from wm_core.exporting.to_onnx import with_card
from wm_core.library import return_gate as gate
from wm_core.library.policies import best_policies, learnt_agent
from wm_core.library.run_folder import load_settings, run_id_of
from wm_core.link.trainer.policy_repository import PolicyRepository
from wm_core.store.frames import BlockLost
from wm_core.store.ledger import LEDGER_NAME
from wm_core.store.reader import Store
from wm_core.training.checkpoint import Trained
from wm_core.training.provenance import commit

SURPRISE_STEPS = 2000  #: stored steps from which ``wm export`` takes the limit of surprise
CALIBRATION_STEPS = 400  #: that give the ranges of an 8-bit graph
COMPARED_STEPS = 1000  #: on which 8 bits and float32 act, where no task can be run
CACHE_BYTES = 50_000_000


def export(
    run: str | Path,
    to: str | Path,
    *,
    version: str | int = "newest",
    golden_steps: int = 200,
    int8: bool = False,
    leapp: bool = False,
    episodes: int = 50,
    max_loss: float = gate.MAX_LOSS,
    tell: Callable[[str], None] = lambda text: None,
) -> PolicyRunner:
    """Write the policy in a checkpoint of ``run`` into the folder ``to``.

    Args:
        run: the run folder of a training.
        version: newest, best (by evaluation), or the updates of a checkpoint.
        to: receives policy.onnx, policy.golden.npz and policy.manifest.json.
        golden_steps: length of the rollout that proves the file.
        int8: quantise it to 8 bits; refuse where it then acts worse.
        leapp: write a LEAPP bundle (policy.yaml) beside the policy.
        episodes: of the run's task that both precisions play, at most.
        max_loss: share of the return that 8 bits may lose; without a task, of the actions' range.
        tell: is called with one line on what 8 bits cost, and on what could not be measured.

    Returns:
        The policy, loaded from ``to`` and proved as a robot would.

    Raises:
        StoreError: where the run has no checkpoint or ``to`` cannot be written.
        PolicyRefused: where 8 bits lose more than ``max_loss``.
        SettingsError: where no policy was learnt, or no experience is there to calibrate on.
    """
    run, to = Path(run), Path(to)
    trained = learnt_agent(run, version)
    exporter = PolicyExporter(
        trained.agent,
        trained.spec,
        trained.config,
        run_id=run_id_of(run),
        commit=commit(),
        task=trained.task,
    )
    number, store = _version(run, trained), _store_of(run, trained)
    try:
        if int8 and store is None:
            raise SettingsError(
                "int8: expected experience to calibrate on, the run's store is empty or gone"
            )
        made = exporter.export(number, trained.updates, trained.agent_steps, golden_steps)
        made = with_surprise_limit(made, store, SURPRISE_STEPS)
        if int8 and store is not None:
            made = _int8(made, exporter, store, episodes, max_loss, tell)
    finally:
        if store is not None:
            store.close()
    runner = write_policy(to, made, version=number, learner_updates=trained.updates)
    if leapp:
        write_bundle(to, ONNX_NAME, runner.card)
    return runner


def with_surprise_limit(export: Export, store: Store | None, steps: int) -> Export:
    """Add to the card the surprise that ``steps`` stored steps hardly ever reach.

    It stays as it is where too little is stored, or where some of it is removed meanwhile.
    """
    if store is None or not store.segments:
        return export
    runner = PolicyRunner.from_bytes(export.onnx)
    try:
        limit = surprise_limit(runner, stored_steps(store, steps))
    except BlockLost:
        return export
    return export if limit is None else _with(export, runner.card, surprise_limit=limit)


def _with(export: Export, card: PolicyCard, **fields: object) -> Export:
    return export._replace(onnx=with_card(export.onnx, card.model_copy(update=fields)))


def _int8(
    made: Export,
    exporter: PolicyExporter,
    store: Store,
    episodes: int,
    max_loss: float,
    tell: Callable[[str], None],
) -> Export:
    """The 8-bit version of ``made``, whose card says what it lost; raises where that is much."""
    original = PolicyRunner.from_bytes(made.onnx)
    feeds = (feed for feed, _ in replay(original, stored_steps(store, CALIBRATION_STEPS)))
    small = make_int8(made, exporter.step, feeds)
    quantized = PolicyRunner.from_bytes(small.onnx)
    deviation = gate.measure_actions(original, quantized, stored_steps(store, COMPARED_STEPS))
    tell(f"int8 {gate.describe_actions(deviation)}")
    fields: dict[str, object] = {"action_deviation": deviation}
    try:
        if not original.card.task:
            raise SettingsError("the run names no task")
        loss = gate.measure_return(original, quantized, episodes=episodes, max_loss=max_loss)
    except SettingsError as error:
        tell(f"int8: the return was not measured ({error}); the actions over stored steps decide")
        gate.check_actions(deviation, max_loss, discrete=original.spec.action.discrete)
    else:
        tell(f"int8 {gate.describe_return(loss)}")
        gate.check_return(loss, max_loss)
        if not gate.is_proven(loss, max_loss):
            tell(f"int8: {loss.episodes} episodes do not prove a loss below {max_loss:.1%}")
        fields["return_loss"] = loss
    return _with(small, quantized.card, **fields)


def _store_of(run: Path, trained: Trained) -> Store | None:
    """Open the experience that ``run`` learnt from; None where it is gone or does not fit."""
    try:
        root = load_settings(run).store_root
    except WmError:
        root = run / "store"
    if not (root / LEDGER_NAME).exists():
        return None
    store = Store(root, cache_bytes=CACHE_BYTES)
    store.refresh()
    if store.segments and _fits(store.spec, trained.spec):
        return store
    store.close()
    return None


def _fits(stored: Spec, wanted: Spec) -> bool:
    """Whether experience of ``stored`` has every input and the actions of ``wanted``."""
    inputs = all(stored.inputs.get(key) == sensor for key, sensor in wanted.inputs.items())
    took, takes = stored.action, wanted.action
    return inputs and (took.size, took.sizes) == (takes.size, takes.sizes)


def write_policy(to: Path, export: Export, *, version: int, learner_updates: int) -> PolicyRunner:
    """Write a policy folder durably; returns the policy, loaded from there and proved."""
    try:
        PolicyFolder(to).write(*export, version=version, learner_updates=learner_updates)
    except OSError as error:
        raise StoreError(f"cannot write the policy to {to}: {error.strerror}") from error
    return PolicyRunner.load(to)


def _version(run: Path, trained: Trained) -> int:
    """The number under which the run published this policy, or would publish it next."""
    published = PolicyRepository(run / "policies")
    last = published.latest()
    if last is None:
        return min(trained.updates, 1)
    kept = [published.folder(version) for version in published.versions()]
    best = best_policies(run)
    for folder in reversed([*(best.folder(version) for version in best.versions()), *kept]):
        manifest = PolicyFolder(folder).read_manifest()
        if manifest.learner_updates == trained.updates:
            return manifest.version
    return last.version + (last.learner_updates != trained.updates)
