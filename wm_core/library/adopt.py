"""Another trainer's network as a policy folder, which a robot loads as one of this project's."""

from __future__ import annotations

import hashlib
import io
import tempfile
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import yaml
from pydantic import ValidationError

from wm_core.contract.card import PolicyCard
from wm_core.contract.conformance import check_policy
from wm_core.contract.errors import PolicyRefused, SettingsError, StoreError
from wm_core.contract.image import to_network
from wm_core.contract.policy_folder import PolicyFolder
from wm_core.contract.runner import PolicyRunner
from wm_core.exporting.adopt import Adopted, wrap
from wm_core.exporting.answers import Answers
from wm_core.exporting.golden import frame, scenes
from wm_core.exporting.guesses import Draft, draft, questions, settled
from wm_core.exporting.network import Network
from wm_core.exporting.to_onnx import read_weights_sha256, with_card

GOLDEN_STEPS = 200
_RESET_EVERY = 17
_SEED = 20_261_129
_OLD_PERIODS = 2.0


def read_network(path: str | Path) -> tuple[Network, Draft]:
    """Read a network and what its file says: an ONNX file, or a bundle's YAML file.

    Raises:
        PolicyRefused: for what is no network, or one that cannot be a policy.
    """
    network = Network.load(Path(path))
    return network, draft(network)


def adopt(file: str | Path, to: str | Path, answers: Answers | str | Path | Draft) -> PolicyRunner:
    """Write the network in ``file`` as a policy into the folder ``to``, and prove it.

    Args:
        file: ONNX file of another trainer.
        to: receives policy.onnx, policy.golden.npz and policy.manifest.json.
        answers: what the file does not say: as such, as a YAML file or as its content.

    Returns:
        The policy, loaded from ``to``; it has passed the public kit.

    Raises:
        SettingsError: for answers that are missing or do not fit the file.
        PolicyRefused: for a file that cannot be a policy, or behaves as none should.
        StoreError: where ``to`` cannot be written.
    """
    network, told = read_network(file)
    if isinstance(answers, str | Path):
        answers = read_answers(Path(answers))
    if not isinstance(answers, Answers):
        answers = to_answers(overlaid(told, answers), str(file))
    adopted = wrap(network, answers)
    source = hashlib.sha256(Path(file).read_bytes()).hexdigest()
    made = _finished(adopted, answers, source)
    with tempfile.TemporaryDirectory() as folder:
        PolicyFolder(Path(folder)).write(*made, version=1)
        try:
            check_policy(Path(folder))
        except AssertionError as error:
            raise PolicyRefused(f"{file}: as a policy it breaks the contract: {error}") from error
    try:
        PolicyFolder(Path(to)).write(*made, version=1)
    except OSError as error:
        raise StoreError(f"cannot write the policy to {to}: {error.strerror}") from error
    return PolicyRunner.load(Path(to))


def read_answers(path: Path) -> Draft:
    """Read answers from the YAML file at ``path``; raises ``SettingsError`` where it has none."""
    try:
        found = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SettingsError(f"{path}: expected answers as YAML, got: {error}") from error
    if not isinstance(found, dict):
        raise SettingsError(f"{path}: expected answers by name, got {type(found).__name__}")
    return found


def overlaid(told: Draft, given: Draft) -> Draft:
    """``told`` by the file, with what is ``given`` in its place, entry by entry."""
    both = dict(told)
    for key, value in given.items():
        inner = both.get(key)
        nested = isinstance(inner, dict) and isinstance(value, dict)
        both[key] = overlaid(inner, value) if nested else value  # type: ignore[arg-type]
    return both


def to_answers(values: Draft, what: str) -> Answers:
    """Validate ``values``; raises ``SettingsError`` naming each field that is missing or wrong."""
    if open_questions := questions(values):
        listed = "\n".join(f"  {question.text}" for question in open_questions)
        raise SettingsError(
            f"{what} does not say everything; write answers with --template FILE, or answer on a "
            f"terminal. Missing:\n{listed}"
        )
    try:
        return Answers.model_validate(settled(values))
    except ValidationError as error:
        listed = "\n".join(
            f"  {'.'.join(map(str, e['loc']))}: {e['msg'].removeprefix('Value error, ')}, "
            f"got {_short(e['input'])}"
            for e in error.errors()
        )
        raise SettingsError(f"{what}: the answers do not fit:\n{listed}") from error


def answered(values: Draft, ask: Callable[[str], str]) -> Draft:
    """Ask for everything that is unknown; an answer is YAML, such as 0.02 or [1, 2]."""
    for question in questions(values):
        place: Any = values
        for key in question.path[:-1]:
            place = place[key]
        try:
            place[question.path[-1]] = yaml.safe_load(ask(question.text))
        except yaml.YAMLError as error:
            raise SettingsError(f"{question.text}: expected YAML, got: {error}") from error
    return values


def template(values: Draft) -> str:
    """Write answers as YAML, with what is unknown explained."""
    open_questions = "".join(f"# {question.text}\n" for question in questions(values))
    body = yaml.safe_dump(values, sort_keys=False, default_flow_style=None, width=96)
    return f"# Replace each ? by an answer:\n{open_questions}{body}"


def _finished(adopted: Adopted, answers: Answers, source: str) -> tuple[bytes, bytes, str]:
    """The ONNX file with its card, the golden archive, and the hash of the weights."""
    weights = read_weights_sha256(adopted.model)
    card = PolicyCard(
        preset=answers.trainer,
        size="adopted",
        task=answers.task,
        spec=adopted.spec,
        inputs=adopted.inputs,
        outputs=adopted.outputs,
        carry=adopted.carry,
        max_obs_age_s=_OLD_PERIODS * answers.period_s,
        version=1,
        weights_sha256=weights,
        exporter={"onnx": onnx.__version__, "adopted_sha256": source},
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        frame_id=answers.frame_id,
        resize={name: image.resize for name, image in adopted.spec.images.items()},
    )
    golden = _golden(PolicyRunner.from_bytes(with_card(adopted.model, card)))
    told = hashlib.sha256(golden).hexdigest()
    card = card.model_copy(update={"golden_sha256": told})
    return with_card(adopted.model, card), golden, weights


def _golden(runner: PolicyRunner) -> bytes:
    """Archive what the policy answers here to smooth observations, with resets."""
    spec, rng = runner.spec, np.random.default_rng(_SEED)
    text = np.frombuffer(spec.model_dump_json().encode(), np.uint8)
    arrays: dict[str, np.ndarray] = {"spec": text}
    for key, image in spec.images.items():
        shown = frame(image, rng)
        arrays[f"frame/{key}"], arrays[f"seen/{key}"] = shown, to_network(shown, image)
    inputs = scenes(spec, GOLDEN_STEPS, rng)
    sent = np.stack([spec.action.random(rng) for _ in range(GOLDEN_STEPS)])
    inputs |= {"prev_action": sent, "is_first": np.arange(GOLDEN_STEPS) % _RESET_EVERY == 0}
    rows, carry = list[dict[str, np.ndarray]](), runner.initial_carry()
    for t in range(GOLDEN_STEPS):
        out = runner.call({name: value[t : t + 1] for name, value in inputs.items()} | carry)
        if not all(np.isfinite(value).all() for value in out.values()):
            raise PolicyRefused(
                "the network answers with NaN or infinity to ordinary observations: expected "
                "finite numbers; is a scale, a mean or a std wrong?"
            )
        carry = {pair.input: out[pair.output] for pair in runner.card.carry}
        rows.append(out)
    arrays |= {f"in/{name}": value for name, value in inputs.items()}
    arrays |= {f"out/{name}": np.concatenate([row[name] for row in rows]) for name in rows[0]}
    if not spec.action.discrete:
        span = np.subtract(spec.action.high, spec.action.low).astype(np.float32)
        arrays["scale/command"] = np.repeat(span[None], GOLDEN_STEPS, axis=0)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) < 60 else f"{text[:57]}..."
