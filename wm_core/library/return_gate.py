"""Lets an 8-bit policy through only where it acts as well as the one it was made from.

On a task that can be run here, both play the same episodes and their returns decide.  For a robot
there is no such task: there, both are shown the stored steps and their actions decide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack

import numpy as np

from wm_core.contract.card import Deviation, ReturnLoss
from wm_core.contract.errors import PolicyRefused
from wm_core.contract.runner import PolicyRunner
from wm_core.contract.spec import ActionSpec
from wm_core.exporting.stored import StoredStep, replay
from wm_core.library.card_env import env_of
from wm_core.training.evaluate import open_env, run_episodes
from wm_core.training.players import EnginePlayer
from wm_core.training.returns import Evaluation

MAX_LOSS = 0.02  #: of the return, or of an action's range
DECIDES = 10  #: pairs of episodes from which on the interval of the loss may end the comparison
LARGEST = 0.5  #: deviation of a single action, in [-1, 1] units, that is refused on any share


def measure_return(
    original: PolicyRunner,
    quantized: PolicyRunner,
    *,
    episodes: int,
    max_loss: float,
    seed: int = 0,
    on_pair: Callable[[int], None] | None = None,
) -> ReturnLoss:
    """Let both policies play the same episodes of their task, with the same draws.

    After ``DECIDES`` pairs it ends as soon as the 95 % interval of the loss lies on one side of
    ``max_loss``.  The loss is a share of the original's mean return, or of the spread of its
    returns where that is larger: a mean near zero is no scale.

    Args:
        original: in float32; its card names the task.
        quantized: the same policy in 8 bits.
        episodes: of each policy at most, 2 or more.
        max_loss: share of the return that may be lost.
        seed: of the episodes and the draws.
        on_pair: called with the number of pairs so far.

    Raises:
        SettingsError: where the task cannot be run here or does not fit.
    """
    returns: list[list[float]] = [[], []]
    with ExitStack() as closers:
        players = []
        for runner in (original, quantized):
            adapter, spec = open_env(
                original.card.task, seed=seed, spec=original.spec, env=env_of(original.card)
            )
            closers.callback(adapter.env.close)
            players.append((EnginePlayer(runner), adapter))
        for pair in range(1, episodes + 1):
            for (player, adapter), told in zip(players, returns, strict=True):
                played = run_episodes(adapter, player, spec, episodes=1, seed=seed + pair)
                told += played.returns
            if on_pair is not None:
                on_pair(pair)
            if pair >= DECIDES:
                loss = loss_of(*returns)
                if loss.high <= max_loss or loss.low > max_loss:
                    break
    return loss_of(*returns)


def loss_of(original: list[float], quantized: list[float]) -> ReturnLoss:
    """Compare the returns of the same episodes, two or more, pair by pair."""
    first = Evaluation(tuple(original), ())
    scale = max(abs(first.mean), first.sd, float(np.finfo(np.float32).tiny))
    pairs = zip(original, quantized, strict=True)
    lost = Evaluation(tuple((a - b) / scale for a, b in pairs), ())
    low, high = lost.bounds
    return ReturnLoss(
        loss=lost.mean,
        low=low,
        high=high,
        episodes=len(original),
        original=first.mean,
        quantized=float(np.mean(quantized)),
        scale=scale,
    )


def measure_actions(
    original: PolicyRunner, quantized: PolicyRunner, steps: Iterable[StoredStep], *, seed: int = 0
) -> Deviation:
    """Show both policies the same stored steps, with the original's memory and equal draws."""
    off = [
        deviation_of(original.spec.action, quantized.call(feed)["action"][0], out["action"][0])
        for feed, out in replay(original, steps, seed=seed)
    ]
    return Deviation(mean=float(np.mean(off)), largest=float(np.max(off)), steps=len(off))


def deviation_of(spec: ActionSpec, action: np.ndarray, other: np.ndarray) -> float:
    """Say how far two actions (A,) are apart in [-1, 1]; of choices, the share that differs."""
    apart = np.abs(action - other)
    if not spec.discrete:
        return float(apart.max())
    return float(np.mean(np.maximum.reduceat(apart, spec.begins) > 0))


def describe_return(loss: ReturnLoss) -> str:
    """Say what was lost, with the interval."""
    return (
        f"loses {loss.loss:.1%} of the return (95 %: {loss.low:.1%} .. {loss.high:.1%} over "
        f"{loss.episodes} episodes; float32 {loss.original:.4g}, int8 {loss.quantized:.4g}, "
        f"of {loss.scale:.4g})"
    )


def is_proven(loss: ReturnLoss, max_loss: float) -> bool:
    """Whether the whole interval of the loss lies within ``max_loss``."""
    return loss.high <= max_loss


def describe_actions(deviation: Deviation) -> str:
    """Say how far the actions are apart."""
    return (
        f"acts {deviation.mean:.4f} off in [-1, 1] on average, {deviation.largest:.3f} at most, "
        f"over {deviation.steps} stored steps"
    )


def check_return(loss: ReturnLoss, max_loss: float) -> None:
    """Raise ``PolicyRefused`` where more than ``max_loss`` of the return was lost."""
    if not loss.loss <= max_loss:
        raise PolicyRefused(
            f"int8 {describe_return(loss)}; at most {max_loss:.1%} is accepted. Nothing was "
            "written: export in float32, train on, or name more --episodes or another --max-loss"
        )


def check_actions(deviation: Deviation, max_loss: float, *, discrete: bool) -> None:
    """Raise ``PolicyRefused`` where the actions are further apart than ``max_loss`` on average.

    A single one of more than ``LARGEST`` is refused too, except of a choice.
    """
    # the range of an action is 2; a choice differs or does not
    share = deviation.mean if discrete else deviation.mean / 2
    if not share <= max_loss or (not discrete and deviation.largest > LARGEST):
        raise PolicyRefused(
            f"int8 {describe_actions(deviation)}; at most {max_loss:.1%} of the range on average "
            f"and {LARGEST:g} once are accepted. Nothing was written: export in float32, train "
            "on, or name another --max-loss"
        )
