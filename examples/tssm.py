"""A TSSM: a transformer instead of a recurrence, as in TransDreamer.

An RSSM walks along time: h_t needs h_{t-1}. Here h_t is what a causal transformer makes of the
tokens (z, a) of all steps before t within its window, so that every h_t of a sequence is computed
at once and may look straight at a step long ago. That asks for a posterior without memory, for
else z_t needed h_t and there would be a chain again:

    prior      p(z_t | h_t)    what the past lets expect
    posterior  q(z_t | e_t)    what the frame alone shows

On the robot and in imagination it goes step by step all the same: keys and values of the last
``window`` tokens are kept in a ring, and travel through the exported file as its carry.

    python examples/tssm.py                             # some minutes on one core
    python examples/tssm.py --updates 300 --world.transformer.window 8    # any option of wm train

It is `wm train --preset transdreamer` with two layers instead of three.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import torch

from wm_core import presets
from wm_core.cli.main import main as verb
from wm_core.cli.settings import parse
from wm_core.contract.runner import PolicyEngine, PolicyRunner
from wm_core.library.assembly import make_trainer
from wm_core.library.run_folder import TrainSettings
from wm_core.training.evaluate import open_env

PRESET = "transdreamer"
CHANGES = "--world.transformer.layers 2"
RUN = Path("runs/examples/tssm")


def settings_from(words: list[str]) -> TrainSettings:
    """The preset in its size for two cores, with ``CHANGES``, and then with ``words``."""
    config = presets.make(PRESET, "micro")
    start = TrainSettings.model_construct(
        **dict(config), run=RUN, task="seek", publish=False, resume=True
    )
    goal = ["--train.updates", "1500", "--train.eval-every", "0", "--train.video-every", "0"]
    return parse(TrainSettings, [*CHANGES.split(), *goal, *words], verb="train", default=start)


def wm(*words: object) -> None:
    """``wm`` with these words, as in a shell."""
    if verb([str(word) for word in words]):
        sys.exit(f"wm {words[0]} failed")


def act(policy: Path, task: str, steps: int) -> None:
    """Let the exported file drive the task: what a robot does, without torch."""
    engine = PolicyEngine(PolicyRunner.load(policy), seed=0, mean=True)
    adapter, spec = open_env(task, seed=0, spec=engine.runner.spec)
    for _ in range(steps):
        out = engine.act(adapter.state.obs, adapter.prev_action, adapter.state.is_first)
        now = adapter.step(spec.action.limit(out.action, adapter.prev_action))
        print(f"command {out.command.round(2)}, reward {now.reward:+.2f}")
    adapter.env.close()


def main() -> None:
    """Train, look, export, judge, act."""
    words = ["--train.updates" if word == "--updates" else word for word in sys.argv[1:]]
    settings = settings_from(words)
    torch.set_num_threads(1)
    print(f"{PRESET} {CHANGES}\n{presets.row_of(settings.config)}")
    end = make_trainer(settings, threading.Event()).train()  # the loop of wm train
    print(f"{end.updates} updates from {end.agent_steps} steps; run folder {settings.run}")

    policy = settings.run / "policy"
    wm("show", "--run", settings.run)  # imagined beside real: imagined.gif and imagined.png
    wm("export", "--run", settings.run, "--to", policy)
    wm("evaluate", "--policy", policy, "--episodes", 5)
    wm("evaluate", "--random", "--task", settings.task, "--episodes", 5)
    act(policy, settings.task, steps=5)


if __name__ == "__main__":
    main()
