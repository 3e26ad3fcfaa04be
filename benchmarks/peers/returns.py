"""What sheeprl's DreamerV3 has learnt of a task after so much CPU time.

``python -m benchmarks.peers.returns --minutes 60`` trains it by its own command, with the network,
windows, updates per step and action repeat of our ``micro``, stops it once its CPU time is over,
and plays its last checkpoint with its mean action.  The task is ours, since its own wrapper
renders every control step of a held action, which took 0.24 s for each action of 8 here.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.peers.sizes import SIZES, Size
from benchmarks.peers.with_sheeprl import network_options

CHECKPOINT_EVERY = 200  #: agent steps
EVALUATION_SEED = 10_000  #: of the first episode that is played


def options(given: argparse.Namespace, size: Size) -> list[str]:
    """Build the options of sheeprl's command, in its own words."""
    return [
        *("exp=dreamer_v3", "env=gym", "algo=dreamer_v3_S", "env.screen_size=64"),
        *(f"env.id=sim:{given.task}", f"+env.wrapper.action_repeat={given.repeat}"),
        *("env.num_envs=1", "env.action_repeat=1", "env.max_episode_steps=-1"),
        *("algo.cnn_keys.encoder=[image]", "algo.cnn_keys.decoder=[image]"),
        *("algo.mlp_keys.encoder=[]", "algo.mlp_keys.decoder=[]"),
        *("algo.total_steps=10000000", f"algo.learning_starts={given.prefill}"),
        f"algo.replay_ratio={given.updates_per_step}",
        *network_options(size),
        f"algo.world_model.optimizer.lr={given.lr}",
        *(f"algo.{part}.optimizer.lr={given.actor_lr}" for part in ("actor", "critic")),
        *("buffer.size=200000", "buffer.memmap=False", "buffer.checkpoint=False"),
        *(f"checkpoint.every={CHECKPOINT_EVERY}", "checkpoint.keep_last=2"),
        *("env.capture_video=False", "metric.log_every=1000", "algo.run_test=False"),
        *(f"fabric.precision={given.precision}", "fabric.accelerator=cpu", "fabric.devices=1"),
        *(f"num_threads={given.threads}", f"seed={given.seed}", "model_manager.disabled=True"),
        *(f"log_root={given.to.resolve()}", "root_dir=sheeprl", "run_name=run"),
        *("hydra.run.dir=.", "hydra.output_subdir=null", "hydra/job_logging=disabled"),
    ]


def train(given: argparse.Namespace, size: Size) -> float:
    """Train until the CPU time is over; returns the minutes of CPU time that were taken."""
    command = [sys.executable, "-m", "sheeprl", *options(given, size)]
    print(" ".join(command), flush=True)
    given.to.mkdir(parents=True)
    with (given.to / "sheeprl.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            used = _until(process, given.minutes)
        finally:
            process.kill()
            process.wait()
    if used < given.minutes:
        raise SystemExit(f"sheeprl ended by itself: see {given.to / 'sheeprl.log'}")
    return used


def _until(process: subprocess.Popen[bytes], minutes: float) -> float:
    """Wait until a process has used ``minutes`` of CPU time or has ended; returns what it used."""
    used, shown = 0.0, 0.0
    while process.poll() is None and used < minutes:
        time.sleep(1)
        used = _cpu_minutes(process.pid) or used
        if used - shown >= 1:
            shown = used
            print(f"{used:.0f} of {minutes:.0f} CPU minutes", flush=True)
    return used


def _cpu_minutes(pid: int) -> float:
    """Read the CPU time of a process and of the children that it waited for; 0 if it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except FileNotFoundError:
        return 0.0
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK") / 60


def play(folder: Path, episodes: int) -> tuple[int, list[float]]:
    """Play the newest checkpoint in ``folder``; returns its steps and each episode's return."""
    warnings.filterwarnings("ignore")  # of other people's code
    import torch
    from lightning import Fabric
    from omegaconf import OmegaConf
    from sheeprl.algos.dreamer_v3.agent import build_agent
    from sheeprl.utils.env import make_env
    from sheeprl.utils.utils import dotdict

    found = sorted(folder.rglob("ckpt_*.ckpt"), key=lambda p: int(p.stem.split("_")[1]))
    if not found:
        raise SystemExit(f"no checkpoint in {folder}: give it more --minutes")
    log = found[-1].parent.parent
    config = dotdict(OmegaConf.to_container(OmegaConf.load(log / "config.yaml"), resolve=True))
    fabric = Fabric(accelerator="cpu", devices=1, precision=config.fabric.precision)
    state = torch.load(found[-1], weights_only=False)  # made by the process that ended just now
    env = make_env(config, EVALUATION_SEED, 0, None, "test")()
    shape, space = env.action_space.shape, env.observation_space
    weights = (state["world_model"], state["actor"])
    player = build_agent(fabric, tuple(shape), True, config, space, *weights)[-1]
    returns = [_episode(env, player, fabric, EVALUATION_SEED + n) for n in range(episodes)]
    env.close()
    return int(found[-1].stem.split("_")[1]), returns


def _episode(env: Any, player: Any, fabric: Any, seed: int) -> float:
    """Play one episode with the mean action; returns the sum of its rewards."""
    import torch
    from sheeprl.algos.dreamer_v3.utils import prepare_obs

    total, ended, obs = 0.0, False, env.reset(seed=seed)[0]
    player.num_envs = 1
    with torch.inference_mode():
        player.init_states()
        while not ended:
            seen = prepare_obs(fabric, obs, cnn_keys=["image"])
            action = torch.stack(player.get_actions(seen, True, {}), -1)
            obs, reward, terminated, truncated, _ = env.step(
                action.cpu().numpy().reshape(env.action_space.shape)
            )
            total, ended = total + float(reward), terminated or truncated
    return total


def main(argv: Sequence[str]) -> int:
    """Train, play and write ``returns.json``; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers.returns",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--to", type=Path, required=True, help="a new folder for its files")
    parser.add_argument("--task", default="cartpole_swingup", help="of `wm tasks`")
    parser.add_argument("--minutes", type=float, default=60, help="of CPU time")
    parser.add_argument("--size", choices=list(SIZES), default="micro")
    parser.add_argument("--repeat", type=int, default=8, help="control steps for each action")
    parser.add_argument("--prefill", type=int, default=1000, help="steps of random actions")
    parser.add_argument("--updates-per-step", type=float, default=0.25)
    parser.add_argument("--lr", type=float, default=4e-4, help="of the world model")
    parser.add_argument("--actor-lr", type=float, default=1e-4, help="of actor and critic")
    parser.add_argument("--precision", default="32-true")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--episodes", type=int, default=20, help="that are played in the end")
    given = parser.parse_args(argv)
    if given.to.exists():
        parser.error(f"{given.to} is there already: name a new folder")
    minutes = train(given, SIZES[given.size])
    steps, returns = play(given.to, given.episodes)
    row = {"cpu_minutes": minutes, "steps": steps, "frames": steps * given.repeat}
    row |= {"mean": sum(returns) / len(returns), "returns": returns}
    (given.to / "returns.json").write_text(json.dumps(row, indent=1))
    print(json.dumps(row))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
