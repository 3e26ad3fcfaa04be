"""An RSSM with categorical latents: the world model of DreamerV2 and DreamerV3.

Two things are carried from step to step. ``deter``, h_t, is what a GRU remembers of the past:
h_t = GRU(h_{t-1}, z_{t-1}, a_{t-1}). ``stoch``, z_t, is what of the present could not be foreseen,
here 16 dice with 16 sides. There are two opinions on how they fall:

    prior      p(z_t | h_t)         before the camera is looked at
    posterior  q(z_t | h_t, e_t)    after it; e_t is the encoder's view of the frame

Training draws the two together: the prior learns to foresee, and the posterior to say no more than
is worth foreseeing. With its eyes closed the model goes on by its prior, and that is where the
actor learns. A die that has fallen has no gradient, so its probabilities' is used; one fall in a
hundred is by chance (``unimix``), so that nothing is ever thought impossible.

    python examples/rssm_discrete.py                    # some minutes on one core
    python examples/rssm_discrete.py --updates 300 --world.classes 8   # any option of wm train

Compare rssm_continuous.py, which differs in ``CHANGES`` alone.
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

PRESET = "dreamer_v3"
CHANGES = "--world.latent categorical --world.groups 16 --world.classes 16"
RUN = Path("runs/examples/rssm_discrete")


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
