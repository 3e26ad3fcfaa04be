"""What version 0.1.0 wrote still opens: settings, stores, policies and checkpoints of its runs."""

import json
import tarfile
from pathlib import Path

import numpy as np
import onnx
import pytest

from wm_core import presets
from wm_core.config import Config
from wm_core.contract.card import CARD_KEY
from wm_core.contract.conformance import check_policy
from wm_core.contract.golden import PARITY, check_golden
from wm_core.contract.runner import PolicyRunner
from wm_core.exporting.exporter import PolicyExporter
from wm_core.exporting.policy_module import PolicyStep
from wm_core.library.run_folder import load_settings
from wm_core.presets.micro import merged
from wm_core.renamed import renewed
from wm_core.replay.sampler import Sampler
from wm_core.store.reader import Store
from wm_core.training.checkpoint import load_agent

FIXTURES = Path(__file__).parents[2] / "fixtures"
RUNS = ("dreamer_v3", "dreamer_v1", "twm", "s4wm", "world_models")
OLD = json.loads((FIXTURES / "presets_of_0.1.0.json").read_text())


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The folders of five runs that version 0.1.0 made, by preset."""
    folder = tmp_path_factory.mktemp("old")
    with tarfile.open(FIXTURES / "runs_of_0.1.0.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder


#: what presets were meant to change since then: (preset or "*", size or "*") -> settings
CHANGED = {
    ("*", "micro"): {
        "world": {"recon": {"vector_variance": "measured"}, "decoder": {"start": "mean"}},
        "train": {"prefill": 1000, "burst": 300, "explore": {"hold": 4}},
    },
    ("world_models", "micro"): {"train": {"burst": None}},
    ("r2dreamer", "micro"): {
        "world": {"discount_horizon": 50.0},
        "behavior": {"entropy": {"scale": 1e-3}},
        "optim": {"lr": 1e-3, "actor_lr": 4e-4, "critic_lr": 4e-4, "decay_after": 1000},
        "train": {"prefill": 5000, "replay_ratio": 64.0, "explore": {"hold": 2}},
    },
    ("dreamer_v1", "paper"): {"train": {"burst": 100}},
    ("dreamer_v2", "paper"): {"train": {"burst": 100}},
    ("dreamer_v2", "*"): {
        "behavior": {"start_weight": "recorded"}, "optim": {"decay_by_rate": False},
    },
    ("dreamer_v3", "paper"): {"behavior": {"actor": {"unimix": 0.0}}},
    ("daydreamer", "*"): {
        "world": {"decoder": {"pixels": "sigmoid"}},
        "behavior": {
            "start_weight": "recorded", "baseline": "attached", "actor": {"std_shift": 0.0},
            "entropy": {"scale": 1.0},
        },
    },
    ("transdreamer", "paper"): {
        "world": {"recon": {"scale": 0.5 / 0.3**2}}, "behavior": {"imag_horizon": 43},
    },
    ("twm", "*"): {
        "world": {
            "transformer": {"token_activation": True, "score_scale": "width"},
            "entropy": {"over": "mean"}, "acting": "mode",
        },
        "behavior": {"start_weight": "recorded", "entropy": {"over": "mean"}},
        "replay": {"selector": "balanced", "online_queue": False},
    },
    ("twm", "paper"): {"train": {"replay_ratio": 2105.0}},
    ("s4wm", "paper"): {
        "world": {
            "posterior": {"units": 512}, "net": {"layers": 1, "units": 512},
            "ssm": {"state": 128},
        },
        "behavior": {"gradient": "auto"}, "optim": {"warmup": 0},
    },
}  # fmt: skip


@pytest.mark.parametrize("size", ["micro", "paper"])
@pytest.mark.parametrize("preset", list(OLD))
def test_a_preset_differs_from_what_it_was_only_where_it_was_meant_to(preset, size):
    expected = renewed(OLD[preset][size])
    for (whose, in_size), changes in CHANGED.items():
        if whose in ("*", preset) and in_size in ("*", size):
            expected = merged(expected, changes)
    assert Config.model_validate(expected) == presets.make(preset, size)


@pytest.mark.parametrize("preset", RUNS)
def test_the_settings_of_an_old_run_are_read(runs, preset):
    settings = load_settings(runs / preset)
    assert (settings.preset, settings.size) == (preset, "micro")
    assert settings.train.updates == 60
    assert settings.config == load_agent(runs / preset).config


@pytest.mark.parametrize("preset", RUNS)
def test_an_old_checkpoint_exports_the_same_policy(runs, preset):
    """Its new file has the old one's weights and says the same; both repeat one rollout."""
    before = onnx.load(runs / preset / "exported" / "policy.onnx")
    old = PolicyRunner.from_bytes(before.SerializeToString())
    card = old.card
    trained = load_agent(runs / preset)
    exporter = PolicyExporter(
        trained.agent,
        trained.spec,
        trained.config,
        run_id=card.run_id,
        commit=card.commit,
        task=trained.task,
    )
    got = exporter.export(card.version, trained.updates, trained.agent_steps, golden_steps=20)
    for runner in (old, PolicyRunner.from_bytes(got.onnx)):
        assert check_golden(got.golden, runner.card, runner.call) <= PARITY
    after = onnx.load_from_string(got.onnx)
    was, now = (_weights(model) for model in (before, after))
    for name, _ in PolicyStep(trained.agent, trained.spec).named_parameters():
        np.testing.assert_array_equal(was[name], now[name])
    assert _without_card(before) == _without_card(after)


def _weights(model):
    """Every weight by name, the two parts of a divided weight together."""
    found = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    for name in [n.removesuffix(".known") for n in found if n.endswith(".known")]:
        found[name] = np.concatenate([found[f"{name}.{s}"] for s in ("known", "observed")], 1)
    return found


def _without_card(model):
    """Take the card out of ``model``; returns it without what another graph says of itself."""
    (entry,) = [p for p in model.metadata_props if p.key == CARD_KEY]
    card = json.loads(entry.value)
    model.metadata_props.remove(entry)
    for info in card["outputs"]:  # older ones did not say that rewards are squashed
        info["meaning"] = info["meaning"].partition(", each reward")[0]
    changing = ("created", "exporter", "golden_sha256", "weights_sha256", "split")
    return {key: value for key, value in card.items() if key not in changing}


def test_an_old_policy_proves_itself_and_runs_whole(runs):
    runner = check_policy(runs / "dreamer_v3" / "exported")
    assert runner.card.learner_updates == 60
    assert runner.card.split == ()


def test_an_old_store_opens_and_its_windows_are_drawn(runs):
    store = Store(runs / "dreamer_v3" / "store", cache_bytes=10**7)
    store.refresh()
    assert store.steps == 128
    rng = np.random.default_rng(0)
    batch = Sampler(store, batch=4, length=8, rng=rng, online_queue=False).sample()
    assert batch.obs["image"].shape == (4, 8, 64, 64, 3)
    assert batch.obs["image"].any()
    store.close()
