"""Options that have another name now: settings files and command lines of old runs stay readable.

``RENAMED`` is the only place that knows old names.  A row with several new names means that one
old option stood for several things.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

#: old dotted name -> new dotted names
RENAMED: dict[str, tuple[str, ...]] = {
    "world.encoder": ("world.encoder.kind",),
    "world.depth": ("world.encoder.depth",),
    "world.vector_layers": ("world.encoder.vector_layers",),
    "world.decoder": ("world.decoder.kind",),
    "world.decoder_reads": ("world.decoder.reads",),
    "world.pixels": ("world.decoder.pixels",),
    "world.groups": ("world.categorical.groups",),
    "world.classes": ("world.categorical.classes",),
    "world.unimix": ("world.categorical.unimix",),
    "world.gaussians": ("world.gaussian.size",),
    "world.latent_min_std": ("world.gaussian.min_std",),
    "world.deter": ("world.gru.deter", "world.lstm.deter", "world.ssm.deter"),
    "world.hidden": (
        "world.gru.hidden", "world.lstm.hidden", "world.posterior.units", "world.net.units",
    ),
    "world.cell": ("world.gru.cell",),
    "world.blocks": ("world.gru.blocks",),
    "world.posterior_layers": ("world.posterior.layers",),
    "world.prior_layers": ("world.net.layers",),
    "world.mixtures": ("world.mdn.mixtures",),
    "world.heads_read": ("world.heads.reads",),
    "world.head_layers": ("world.heads.layers",),
    "world.reward_head": ("world.heads.reward",),
    "world.reward_squash": ("world.heads.squash",),
    "world.bins": ("world.heads.bins",),
    "world.reward_scale": ("world.heads.reward_scale",),
    "world.cont": ("world.heads.cont",),
    "world.cont_scale": ("world.heads.cont_scale",),
    "world.recon_scale": ("world.recon.scale",),
    "world.recon_share": ("world.recon.share",),
    "world.barlow_scale": ("world.barlow.scale",),
    "world.barlow_redundancy": ("world.barlow.redundancy",),
    "world.dyn_scale": ("world.kl.dyn_scale",),
    "world.rep_scale": ("world.kl.rep_scale",),
    "world.rep": ("world.kl.rep",),
    "world.free_nats": ("world.kl.free_nats",),
    "world.free_over": ("world.kl.free_over",),
    "world.kl_target": ("world.kl.target",),
    "world.entropy_scale": ("world.entropy.scale",),
    "world.entropy_floor": ("world.entropy.floor",),
    "behavior.critic": ("behavior.critic.kind",),  # before the others that stand in it now
    "behavior.critic_layers": ("behavior.critic.layers",),
    "behavior.slow": ("behavior.critic.target_network",),
    "behavior.slow_rate": ("behavior.critic.target_rate",),
    "behavior.slow_every": ("behavior.critic.target_every",),
    "behavior.slow_scale": ("behavior.critic.target_scale",),
    "behavior.value_scale": ("behavior.critic.scale",),
    "behavior.replay_value_scale": ("behavior.critic.replay_scale",),
    "behavior.action": ("behavior.actor.kind",),
    "behavior.actor_layers": ("behavior.actor.layers",),
    "behavior.min_std": ("behavior.actor.min_std",),
    "behavior.max_std": ("behavior.actor.max_std",),
    "behavior.init_std": ("behavior.actor.init_std",),
    "behavior.unimix": ("behavior.actor.unimix",),
    "behavior.entropy": ("behavior.entropy.scale",),  # before the others that stand in it now
    "behavior.entropy_rule": ("behavior.entropy.rule",),
    "behavior.entropy_target": ("behavior.entropy.target",),
    "behavior.return_rate": ("behavior.returns.rate",),
    "behavior.return_low": ("behavior.returns.low",),
    "behavior.return_high": ("behavior.returns.high",),
    "behavior.return_limit": ("behavior.returns.limit",),
}  # fmt: skip

_BACKBONES = ("gru", "lstm", "ssm")  #: those whose width the old ``deter`` was, if chosen


def renewed(values: Mapping[str, Any]) -> dict[str, Any]:
    """``values`` of a ``Config``, nested mappings, with every old name replaced by its new ones.

    A value under an old name replaces the one under the new name.  Where the old name stood for
    several backbones, only the chosen one takes the value.
    """
    made = _copied(values)
    world = made.get("world")
    backbone = world.get("backbone", "gru") if isinstance(world, dict) else None
    for old, names in RENAMED.items():
        room, _, field = old.partition(".")
        group = made.get(room)
        if not isinstance(group, dict) or isinstance(group.get(field, {}), dict):
            continue
        value = group.pop(field)
        for name in names:
            *path, last = name.split(".")
            if len(names) > 1 and path[-1] in _BACKBONES and path[-1] != backbone:
                continue
            inner = made
            for key in path:
                inner = inner.setdefault(key, {})
            inner[last] = value
    return made


def _copied(values: Mapping[str, Any]) -> dict[str, Any]:
    return {k: _copied(v) if isinstance(v, Mapping) else v for k, v in values.items()}


def renewed_words(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """A command line with new option names, and a sentence for each old one that it had."""
    made: list[str] = []
    notes: list[str] = []
    i = 0
    while i < len(words):
        stop = i + 1
        option, equals, value = words[i].partition("=")
        names = _new_options(option)
        while names and stop < len(words) and not words[stop].startswith("--"):
            stop += 1
        for name in names or (option,):
            made += [name + equals + value, *words[i + 1 : stop]]
        if names:
            notes.append(f"{option} is called {' and '.join(names)} now")
        i = stop
    return made, notes


def _new_options(option: str) -> tuple[str, ...]:
    """What ``option`` such as ``--world.head-layers`` is called now; nothing if it is not old."""
    *path, field = option.removeprefix("--").replace("-", "_").split(".")
    negated = field.startswith("no_")  # of a yes-or-no option
    old = ".".join([*path, field.removeprefix("no_") if negated else field])
    if not option.startswith("--"):
        return ()
    names = [name.replace("_", "-").rpartition(".") for name in RENAMED.get(old, ())]
    return tuple(f"--{path}.{'no-' * negated}{last}" for path, _, last in names)
