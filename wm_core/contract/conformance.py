"""Tests a policy or a task for everything that the rest of the project relies on.

Call them from a test: a property that does not hold is an ``AssertionError`` that names it.  They
are meant for one's own policies and tasks as much as for this project's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from wm_core.contract.inputs import INPUTS, ImageSpec, input_of
from wm_core.contract.runner import PolicyEngine, PolicyOutput, PolicyRunner
from wm_core.contract.spec import Obs, Spec

_TOLERANCE = 1e-5


def check_policy(folder: Path, *, steps: int = 20, seed: int = 0) -> PolicyRunner:
    """Test the policy in ``folder`` for everything that a robot relies on.

    Its manifest, card and golden rollout; limits, units and shapes of what it answers; that equal
    seeds give equal actions, and that nothing before a reset has an influence after it.

    Args:
        folder: of the policy, or the path of its ``.onnx`` file.
        steps: length of each trial.
        seed: of the observations and the draws.

    Returns:
        The policy, for whatever else a test wants to know.

    Raises:
        PolicyRefused: when it cannot be loaded.
        AssertionError: when a property does not hold.
    """
    runner = PolicyRunner.load(folder)
    first = _trial(runner, PolicyEngine(runner, seed=seed), steps, seed)
    again = _trial(runner, PolicyEngine(runner, seed=seed), steps, seed)
    _require(_same(first, again), "equal seeds and observations must give equal answers")
    ahead = _trial(runner, PolicyEngine(runner, seed=seed), steps, seed, prepares=True)
    _require(_same(first, ahead), "what is prepared ahead of an observation changes the answers")
    _check_reset(runner, steps, seed)
    return runner


def random_obs(spec: Spec, rng: np.random.Generator) -> Obs:
    """Draw one observation of noise: images (H, W, C), vectors (n,) float32."""
    return {key: sensor.random(rng) for key, sensor in spec.inputs.items()}


def _trial(
    runner: PolicyRunner, engine: PolicyEngine, steps: int, seed: int, *, prepares: bool = False
) -> list[PolicyOutput]:
    """Answer ``steps`` random observations; each answer is validated against the spec."""
    rng, action = np.random.default_rng(seed), runner.spec.action
    sent, outputs = np.zeros(action.size, np.float32), []
    for _ in range(steps):
        out = engine.act(random_obs(runner.spec, rng), sent)
        _check_output(runner.spec, out, sent)
        # now and then a safety rule or a person sends something else
        other = action.random(rng)
        sent = other if rng.random() < 0.3 else out.action
        outputs.append(out)
        if prepares:
            engine.prepare(sent)
    return outputs


def _check_output(spec: Spec, out: PolicyOutput, sent: np.ndarray) -> None:
    action = spec.action
    sizes = {"action": action.size, "command": action.command_size}
    for name, size in sizes.items():
        value = getattr(out, name)
        _require(
            value.shape == (size,) and value.dtype == np.float32,
            f"{name}: expected ({size},) float32, got {value.shape} {value.dtype}",
        )
    _require(bool(np.abs(out.action).max() <= 1.0), f"action {out.action} leaves [-1, 1]")
    if action.discrete:
        exact = np.array_equal(out.action, action.limit(out.action, sent))
        _require(exact, f"action {out.action} is not one-hot")
    else:
        moved = float(np.abs(out.action - sent).max())
        _require(
            moved <= action.max_change + _TOLERANCE,
            f"action moved by {moved} from what was sent; at most {action.max_change} is allowed",
        )
    span = 1.0 if action.discrete else np.subtract(action.high, action.low)
    off = np.abs(out.command - action.to_physical(out.action)) / span
    _require(
        bool(off.max() <= _TOLERANCE),
        f"command {out.command} is not the action {out.action} in {action.low} .. {action.high}",
    )


def _check_reset(runner: PolicyRunner, steps: int, seed: int) -> None:
    """Check that equal draws after a reset give equal answers, whatever happened before.

    The carries themselves may differ: a memory of the last steps keeps what it masks.
    """
    rng, action = np.random.default_rng(seed + 1), runner.spec.action
    engine, sent = PolicyEngine(runner, seed=seed), np.zeros(action.size, np.float32)
    for _ in range(steps):
        engine.act(random_obs(runner.spec, rng), sent)
    carries = [runner.initial_carry(), engine.carry]
    draws = [np.random.default_rng(seed) for _ in carries]
    for step in range(steps):
        obs = random_obs(runner.spec, rng)
        some, other = (
            runner.run(obs, sent, step == 0, *given) for given in zip(carries, draws, strict=True)
        )
        _require(_same_answer(some, other), "nothing before is_first may influence what follows")
        carries, sent = [some.carry, other.carry], action.random(rng)


def _same_answer(some: PolicyOutput, other: PolicyOutput) -> bool:
    equal = np.array_equal(some.action, other.action)
    estimates = ((some.value, other.value), (some.surprise, other.surprise))
    return equal and all(a == b for a, b in estimates)


def _same(some: list[PolicyOutput], others: list[PolicyOutput]) -> bool:
    return all(
        np.array_equal(a.action, b.action)
        and all(np.array_equal(a.carry[name], b.carry[name]) for name in a.carry)
        for a, b in zip(some, others, strict=True)
    )


def check_env(env: Any, *, steps: int = 20, seed: int = 0) -> None:
    """Test a Gymnasium environment for what training and ``sim_node`` rely on.

    A dictionary of uint8 images and float32 vectors; a continuous action with finite bounds, or
    one of at least two choices; a rate; episodes that their seed decides; true ``terminated`` and
    ``truncated``; images that change; observations that are the caller's to keep.  Gymnasium's
    own checker covers the rest of its interface.

    Args:
        env: the environment; it is reset, stepped and left open.
        steps: length of each trial; when an episode ends sooner, a new one begins.
        seed: of the episodes and the actions.

    Raises:
        AssertionError: when a property does not hold.
    """
    _check_spaces(env)
    first, again = _episode(env, steps, seed), _episode(env, steps, seed)
    _require(len(first) == len(again), "equal seeds must give episodes of equal length")
    for t, (a, b) in enumerate(zip(first, again, strict=True)):
        _require(
            a[1:] == b[1:] and all(np.array_equal(a[0][k], b[0][k]) for k in a[0]),
            f"step {t}: equal seeds and actions must give equal observations and rewards",
        )
    for key, value in first[0][0].items():
        if isinstance(input_of(env.observation_space.spaces[key]), ImageSpec):
            _require(value.min() < value.max(), f"{key!r} is one colour: is it being rendered?")
            _require(
                any(not np.array_equal(value, obs[key]) for obs, *_ in first[1:]),
                f"{key!r} never changes under random actions",
            )


def _check_spaces(env: Any) -> None:
    spaces = getattr(env.observation_space, "spaces", None)
    if not isinstance(spaces, dict):
        raise AssertionError("expected a Dict observation space")
    wanted = " or ".join(kind.what for kind in INPUTS.values())
    for key, box in spaces.items():
        _require(
            input_of(box) is not None,
            f"{key!r}: expected {wanted}, got {box.shape} {box.dtype}",
        )
    _check_action_space(env.action_space)
    rate_hz = env.metadata.get("render_fps")
    _require(
        rate_hz is not None and rate_hz > 0,
        f"metadata['render_fps'] must be the rate of agent steps in Hz, got {rate_hz}",
    )


def _check_action_space(action: Any) -> None:
    if (sizes := _choices_of(action)) is not None:
        _require(sizes.min() >= 2, f"expected at least two choices, got {action}")
        return
    low, high = getattr(action, "low", np.empty(0)), getattr(action, "high", np.empty(0))
    _require(
        len(low.shape) == 1 and low.size > 0 and bool(np.isfinite([low, high]).all()),
        "expected a 1-D Box with finite bounds, or an action space that is Discrete, "
        f"MultiDiscrete or MultiBinary, got {action}",
    )
    _require(bool((low < high).all()), f"every low must be below its high, got {low} .. {high}")


def _choices_of(action: Any) -> np.ndarray | None:
    """Count what an action space has to choose from, for each choice; None: it has none.

    It goes by attributes, because a robot has no gymnasium to ask.
    """
    if hasattr(action, "nvec"):  # MultiDiscrete
        return np.asarray(action.nvec)
    if not hasattr(action, "n"):
        return None
    return np.asarray(action.n) if hasattr(action, "start") else np.full(action.shape, 2)


def _draw(action: Any, rng: np.random.Generator) -> Any:
    if (sizes := _choices_of(action)) is None:
        return rng.uniform(action.low, action.high).astype(action.low.dtype)
    drawn = rng.integers(sizes) + getattr(action, "start", 0)
    return drawn.astype(action.dtype) if action.shape else int(drawn)


def _episode(env: Any, steps: int, seed: int) -> list[tuple[Obs, float, bool, bool]]:
    """Record (obs, reward, terminated, truncated) from a seeded reset under random actions."""
    rng = np.random.default_rng(seed)
    obs, _ = env.reset(seed=seed)
    record = [(_copied(obs), 0.0, False, False)]
    for _ in range(steps):
        _require(env.observation_space.contains(obs), "observation is not in observation_space")
        handed_out = obs
        obs, reward, terminated, truncated, _ = env.step(_draw(env.action_space, rng))
        _require(
            all(np.array_equal(handed_out[k], record[-1][0][k]) for k in handed_out),
            "a step changed an observation that was handed out before: return new arrays",
        )
        _require(bool(np.isfinite(reward)), f"reward {reward} is not finite")
        _require(
            isinstance(terminated, bool | np.bool_) and isinstance(truncated, bool | np.bool_),
            f"terminated and truncated must be bools, got {terminated!r} and {truncated!r}",
        )
        record.append((_copied(obs), float(reward), bool(terminated), bool(truncated)))
        if terminated or truncated:
            obs, _ = env.reset()
            record.append((_copied(obs), 0.0, False, False))
    return record


def _copied(obs: Obs) -> Obs:
    return {key: value.copy() for key, value in obs.items()}


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise AssertionError(message)
