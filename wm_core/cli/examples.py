"""A few examples for each verb, which its help shows."""

from __future__ import annotations

#: verb -> command lines
EXAMPLES: dict[str, tuple[str, ...]] = {
    "train": (
        "wm train --task CartPole-v1 --run runs/cartpole --train.minutes 10",
        "wm train --run runs/cartpole --resume --train.minutes 20",
        "wm train --follow --spec robot.yaml --run runs/robot",
    ),
    "evaluate": (
        "wm evaluate --run runs/seek --episodes 20",
        "wm evaluate --run runs/seek --version best --films films",
        "wm evaluate --run runs/a runs/b runs/c --envs 4 --json",
    ),
    "runs": (
        "wm runs",
        "wm runs runs/sweep1 --sort best",
        "wm runs --state alive --json",
    ),
    "sweep": (
        "wm sweep --task seek --preset twm awm --seeds 0 1 2 3 --root runs/two",
        "wm sweep --task CartPole-v1 --set train.replay-ratio=16,64 --root runs/ratio",
    ),
    "show": (
        "wm show --run runs/seek",
        "wm show --run runs/seek --windows 6 --length 60 --to pictures",
    ),
    "export": (
        "wm export --run runs/seek --version best --to seek_policy",
        "wm export --run runs/seek --to seek_int8 --int8",
    ),
    "adopt": (
        "wm adopt policy.onnx --template answers.yaml",
        "wm adopt policy.onnx --answers answers.yaml --to policy",
    ),
    "presets": (
        "wm presets",
        "wm presets twm --size paper",
    ),
    "serve": (
        "wm serve --root runs/robot",
        "wm serve --root runs/robot --host 0.0.0.0 --tokens tokens.txt --insecure",
    ),
    "ui": (
        "wm ui --root runs/robot",
        "wm ui --root runs/robot --trainer https://trainer:8765 --token-file token.txt",
    ),
    "sim-actor": (
        "wm sim-actor --trainer http://127.0.0.1:8765 --task seek --envs 4",
        "wm sim-actor --trainer https://trainer:8765 --task seek --actors 8",
    ),
    "tasks": (
        "wm tasks",
        "wm tasks CartPole-v1",
    ),
    "info": (
        "wm info runs/seek",
        "wm info seek_policy --json",
    ),
    "demo": ("wm demo --minutes 5 --run runs/demo",),
}


def examples_of(verb: str) -> str:
    """The examples of ``verb`` under a heading; empty where it has none."""
    lines = EXAMPLES.get(verb, ())
    heading = "example" if len(lines) == 1 else "examples"
    return "\n".join([f"{heading}:", *(f"  {line}" for line in lines)]) if lines else ""
