import json

import numpy as np
import pytest
import torch

from wm_core import presets
from wm_core.agents.agent import AgentCore
from wm_core.bench.contestants import Contestant
from wm_core.bench.policy import SPEC, make_variants, run
from wm_core.contract.conformance import random_obs
from wm_core.contract.errors import SettingsError
from wm_core.contract.policy_folder import PolicyFolder
from wm_core.contract.spec import ActionSpec, Spec, VectorSpec
from wm_core.exporting.exporter import PolicyExporter

pytestmark = pytest.mark.long


def test_every_variant_gets_its_three_quantiles_in_order(capsys):
    assert run(["--json", "--sizes", "micro", "--ticks", "20", "--rate-hz", "500"]) == 0
    first, *rows = map(json.loads, capsys.readouterr().out.splitlines())
    assert first["name"] == "run"
    for variant in ("fp32", "split_fp32", "torch"):
        got = [r["value"] for r in rows if r["name"].startswith(f"policy/micro/{variant}/")]
        assert len(got) == 3
        assert 0 < got[0] <= got[1] <= got[2]
    assert {r["unit"] for r in rows} == {"ms"}


def test_an_unknown_size_is_refused_naming_the_nearest():
    with pytest.raises(SettingsError, match="micro"):
        run(["--sizes", "mirco"])


def test_an_exported_file_is_measured_with_its_own_inputs(tmp_path, capsys):
    spec = Spec(vectors={"speed": VectorSpec(size=3)}, action=ActionSpec(low=(-1.0,), high=(1.0,)))
    config = presets.make("dreamer_v3", "micro")
    agent = AgentCore(spec, config, generator=torch.Generator().manual_seed(0))
    export = PolicyExporter(agent, spec, config).export(0, 0, 0, golden_steps=2)
    PolicyFolder(tmp_path).write(*export, version=0, learner_updates=0)
    assert run(["--json", "--policy", str(tmp_path), "--ticks", "5", "--rate-hz", "500"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert rows[1]["name"] == "policy/file/fp32/p50_ms"
    assert rows[-1]["name"] == "policy/file/split_dry_fp32/p999_ms"


def test_several_rates_another_encoder_and_eight_bits_are_measured_in_one_run(capsys):
    options = ("--sizes", "micro", "--encoder", "k5s2", "--rate-hz", "200", "500", "--ticks", "3")
    assert run(["--json", *options, "--variants", "split_fp32", "split_dry_int8"]) == 0
    rows = [json.loads(line)["name"] for line in capsys.readouterr().out.splitlines()]
    for variant in ("split_fp32", "split_dry_int8"):
        for rate in ("200hz", "500hz"):
            assert f"policy/micro/{variant}/{rate}/p99_ms" in rows


def test_every_way_to_take_a_step_chooses_the_same_action():
    """The mean is not taken: equal seeds draw equal noise, in torch apart."""
    names = ("fp32", "split_fp32", "split_dry_fp32")
    variants = make_variants(Contestant("dreamer_v3", "micro"), names)
    told = {name: [] for name in names}
    for name, ticker in variants.items():
        rng, sent = np.random.default_rng(0), np.zeros(2, np.float32)
        for _ in range(5):
            ticker.before()
            sent = ticker.act(random_obs(SPEC, rng), sent)
            ticker.after(sent)
            told[name].append(sent.tolist())
    assert told["fp32"] == told["split_fp32"] == told["split_dry_fp32"]
