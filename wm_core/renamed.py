"""Options that have another name now: settings files and command lines of old runs stay readable.

This is the only place that knows old names.  Several new names mean that one old option stood for
several things.  An old name that is the name of a group now comes before those inside the group.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

#: room -> old name: new names
_ROWS = {
    "world": """
        encoder: encoder.kind | depth: encoder.depth | vector_layers: encoder.vector_layers |
        decoder: decoder.kind | decoder_reads: decoder.reads | pixels: decoder.pixels |
        groups: categorical.groups | classes: categorical.classes | unimix: categorical.unimix |
        gaussians: gaussian.size | latent_min_std: gaussian.min_std |
        deter: gru.deter lstm.deter ssm.deter |
        hidden: gru.hidden lstm.hidden posterior.units net.units | cell: gru.cell |
        blocks: gru.blocks | posterior_layers: posterior.layers | prior_layers: net.layers |
        mixtures: mdn.mixtures | heads_read: heads.reads | head_layers: heads.layers |
        reward_head: heads.reward | reward_squash: heads.squash | bins: heads.bins |
        reward_scale: heads.reward_scale | cont: heads.cont | cont_scale: heads.cont_scale |
        recon_scale: recon.scale | recon_share: recon.share | barlow_scale: barlow.scale |
        barlow_redundancy: barlow.redundancy | dyn_scale: kl.dyn_scale |
        rep_scale: kl.rep_scale | rep: kl.rep | free_nats: kl.free_nats |
        free_over: kl.free_over | kl_target: kl.target | entropy_scale: entropy.scale |
        entropy_floor: entropy.floor
    """,
    "behavior": """
        critic: critic.kind | critic_layers: critic.layers | slow: critic.target_network |
        slow_rate: critic.target_rate | slow_every: critic.target_every |
        slow_scale: critic.target_scale | value_scale: critic.scale |
        replay_value_scale: critic.replay_scale | action: actor.kind |
        actor_layers: actor.layers | min_std: actor.min_std | max_std: actor.max_std |
        init_std: actor.init_std | unimix: actor.unimix | entropy: entropy.scale |
        entropy_rule: entropy.rule | entropy_target: entropy.target | return_rate: returns.rate |
        return_low: returns.low | return_high: returns.high | return_limit: returns.limit
    """,
}

#: old dotted name -> new dotted names
RENAMED: dict[str, tuple[str, ...]] = {
    f"{room}.{old.strip()}": tuple(f"{room}.{name}" for name in names.split())
    for room, rows in _ROWS.items()
    for old, names in (row.split(":") for row in rows.split("|"))
}

#: old name -> its old values that have another word now, and that word
RENAMED_VALUES = {"behavior.slow": {"pull": "regularize", "target": "bootstrap"}}

_BACKBONES = ("gru", "lstm", "ssm")  #: those whose width the old ``deter`` was, if chosen


def renewed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a ``Config`` (nested mappings) with every old name replaced by its new ones.

    A value under an old name replaces the one under the new name.  Where the old name stood for
    several backbones, only the chosen one takes the value.
    """
    result = _copied(values)
    world = result.get("world")
    backbone = world.get("backbone", "gru") if isinstance(world, dict) else None
    for old, names in RENAMED.items():
        room, _, field = old.partition(".")
        group = result.get(room)
        if not isinstance(group, dict) or isinstance(group.get(field, {}), dict):
            continue
        value = group.pop(field)
        if isinstance(value, str):
            value = RENAMED_VALUES.get(old, {}).get(value, value)
        for name in names:
            *path, last = name.split(".")
            if len(names) > 1 and path[-1] in _BACKBONES and path[-1] != backbone:
                continue
            inner = result
            for key in path:
                inner = inner.setdefault(key, {})
            inner[last] = value
    return result


def _copied(values: Mapping[str, Any]) -> dict[str, Any]:
    return {k: _copied(v) if isinstance(v, Mapping) else v for k, v in values.items()}


def renewed_words(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """A command line with the new option names, and a sentence about each old one in it."""
    result: list[str] = []
    notes: list[str] = []
    i = 0
    while i < len(words):
        stop = i + 1
        option, equals, value = words[i].partition("=")
        names = _new_options(option)
        words_now = RENAMED_VALUES.get(option.removeprefix("--").replace("-", "_"), {})
        while names and stop < len(words) and not words[stop].startswith("--"):
            stop += 1
        for name in names or (option,):
            result.append(name + equals + words_now.get(value, value))
            result += [words_now.get(word, word) for word in words[i + 1 : stop]]
        if names:
            notes.append(f"{option} is called {' and '.join(names)} now")
        i = stop
    return result, notes


def _new_options(option: str) -> tuple[str, ...]:
    """The new names of an old ``option`` such as ``--world.head-layers``; empty for any other."""
    *path, field = option.removeprefix("--").replace("-", "_").split(".")
    negated = field.startswith("no_")  # of a yes-or-no option
    old = ".".join([*path, field.removeprefix("no_") if negated else field])
    if not option.startswith("--"):
        return ()
    names = [name.replace("_", "-").rpartition(".") for name in RENAMED.get(old, ())]
    return tuple(f"--{path}.{'no-' * negated}{last}" for path, _, last in names)
