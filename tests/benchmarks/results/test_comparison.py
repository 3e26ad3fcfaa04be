"""The grid of backbones exchanges what it says and nothing else, and a row is made once."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from benchmarks.results import question
from benchmarks.results.command import ROOT, main, plan_of, state_of, unfinished_with
from benchmarks.results.comparison import BACKBONES, CELLS, place_of
from benchmarks.results.contest import Settings, contests_of
from wm_core.agents.agent import AgentCore
from wm_core.cli.train import train_settings
from wm_core.contract.errors import SettingsError
from wm_core.contract.spec import ActionSpec, Spec
from wm_core.library.resume import flat

GRID = Settings(grid="backbones", tasks=("recall-6",))
SPEC = Spec(action=ActionSpec(low=(-1.0,), high=(1.0,)))
#: settings that a cell may have for itself: the chosen parts and their sizes
EXCHANGED = (
    "world.backbone", "world.gru.", "world.token_gru.", "world.transformer.", "world.ssm.",
    "world.latent", "world.categorical.", "world.gaussian.",
)  # fmt: skip


def weights(module):
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


@pytest.fixture(scope="module")
def configs():
    """The settings of each cell on the task of the grid, resolved as wm train resolves them."""
    return {c.label: train_settings(c.options).config for c in contests_of(GRID)}


@pytest.fixture(scope="module")
def agents(configs):
    generator = torch.Generator()
    return {
        name: AgentCore(SPEC, config, generator=generator.manual_seed(0))
        for name, config in configs.items()
    }


def test_every_backbone_meets_every_latent(configs):
    assert set(configs) == {*CELLS}
    parts = {(c.world.backbone, c.world.latent) for c in configs.values()}
    assert len(parts) == len(CELLS) == 2 * len(BACKBONES)


def test_all_agents_have_as_many_weights_within_a_tenth(agents):
    counts = {name: weights(agent) for name, agent in agents.items()}
    assert max(counts.values()) < 1.1 * min(counts.values()), counts


def test_the_backbones_own_layers_are_of_one_size_and_so_is_deter(agents):
    own = {
        name: weights(getattr(agent.world.dynamics, "backbone", None)
                      or agent.world.dynamics.recurrence.gru)
        for name, agent in agents.items()
    }  # fmt: skip
    assert max(own.values()) < 1.02 * min(own.values()), own
    assert {agent.world.config.sizes.deter for agent in agents.values()} == {256}


def test_nothing_but_backbone_and_latents_differs(configs):
    first, *others = [flat(config.model_dump(mode="json")) for config in configs.values()]
    for other in others:
        different = {name for name in first if first[name] != other[name]}
        assert different
        assert all(name.startswith(EXCHANGED) for name in different), different


def test_windows_begin_without_a_past_and_fit_the_transformer(configs):
    for config in configs.values():
        assert config.replay.latents == 0
        assert config.replay.length <= config.world.transformer.window


def test_a_task_of_the_grid_names_its_delay():
    assert place_of("recall-20") == ("recall", {"env.kwargs": "delay=20"})
    (contest,) = contests_of(GRID.model_copy(update={"rows": ("ssm-gaussian",)}))
    assert train_settings(contest.options).env.kwargs == {"delay": 6}
    assert contest.row.parts[-3:] == ("backbones", "recall-6", "ssm-gaussian-0.json")
    with pytest.raises(SettingsError, match="did you mean 'recall-6'"):
        place_of("recal-6")


def test_a_row_that_does_not_exist_is_refused_before_any_training():
    with pytest.raises(SettingsError, match="did you mean 'ssm-gaussian'"):
        main(GRID.model_copy(update={"rows": ("ssm-gausian",)}))


# ------------------------------------------------------------------------------ made once


@pytest.fixture
def contest(tmp_path):
    """One training whose row and run would lie in a folder of their own."""
    settings = GRID.model_copy(
        update={"rows": ("gru-gaussian",), "runs": tmp_path / "runs", "out": tmp_path / "out"}
    )
    (one,) = contests_of(settings)
    one.row.parent.mkdir(parents=True)
    return one


def written(contest, **changes):
    row = {"settings": question.settings_of(contest.options), "code": "", "failed": None}
    contest.row.write_text(json.dumps(row | changes))


def told(contest, **changes):
    """``contest`` as other options of the command line would make it."""
    (other,) = contests_of(contest.settings.model_copy(update=changes))
    return other


def test_a_row_with_these_settings_stands_and_one_with_others_is_made_again(contest):
    assert not state_of(contest)[0]
    written(contest)
    assert state_of(contest)[0]
    stands, why = state_of(told(contest, options="--optim.lr 1e-3"))
    assert (stands, why) == (False, "optim.lr 0.0004 -> 0.001")
    assert state_of(told(contest, minutes=31.0)) == (False, "train.minutes 30.0 -> 31.0")
    assert not state_of(told(contest, again=True))[0]


def test_trainings_side_by_side_read_their_settings_at_the_same_time(contest):
    rates = [1e-4 * (2 + n) for n in range(8)]
    several = [told(contest, options=f"--optim.lr {rate}") for rate in rates]
    with ThreadPoolExecutor(len(several)) as pool:
        found = list(pool.map(question.settings_of, [one.options for one in several]))
    assert [one["optim.lr"] for one in found] == rates


def test_a_setting_that_has_come_since_counts_only_if_it_is_not_the_default(contest):
    now = question.settings_of(contest.options)
    before = dict(now)
    del before["train.envs"], before["replay.batch"]
    assert question.changes(before, now) == ["replay.batch 16 -> 8"]


def test_a_row_made_by_other_code_is_made_again_only_where_that_is_asked_for(contest):
    written(contest, code="0" * 12)
    assert state_of(contest)[0]
    assert not state_of(told(contest, code=True))[0]
    written(contest, code=question.code_digest(ROOT))
    assert state_of(told(contest, code=True))[0]


def test_a_row_that_does_not_say_its_settings_stands_and_says_so(contest):
    contest.row.write_text("{}")
    stands, why = state_of(contest)
    assert stands
    assert "does not name" in why


def test_an_unfinished_run_goes_on_for_longer_but_not_with_other_settings(contest):
    contest.run.mkdir(parents=True)
    kept = train_settings(contest.options).model_dump(mode="json")
    (contest.run / "settings.json").write_text(json.dumps(kept))
    assert unfinished_with(contest) == ""
    assert unfinished_with(told(contest, minutes=40.0)) == ""
    other = told(contest, options="--behavior.imag-horizon 9")
    assert unfinished_with(other) == "behavior.imag_horizon 15 -> 9"


def test_a_plan_counts_what_is_missing(contest):
    written(contest)
    said = plan_of([contest, *contests_of(contest.settings.model_copy(update={"seeds": (1, 2)}))])
    assert "gru-gaussian-0: stands" in said
    assert "2 of 3 rows to make: 2 x (30 + about 2 to judge) minutes of CPU time = 1.1 h" in said


def test_comments_and_docstrings_are_no_code():
    plain = "def f(x):\n    return x + 1\n"
    told = 'def f(x):  # adds\n    """Add one."""\n\n    return (x + 1)\n'
    assert question.substance(plain) == question.substance(told)
    assert question.substance(plain) != question.substance(plain.replace("1", "2"))
