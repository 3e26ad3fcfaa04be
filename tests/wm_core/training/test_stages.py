"""While a run trains its world model alone, its behaviour is not taken for one that learnt."""

import pytest

from wm_core.cli.main import main
from wm_core.contract.files import read_json
from wm_core.link.trainer.policy_repository import PolicyRepository
from wm_core.training.best import read_best

pytestmark = pytest.mark.long

STAGED = (
    *("--preset", "world_models", "--optim.stages", "4", "4", "--world.gaussian.size", "4"),
    *("--behavior.evolution.population", "4", "--behavior.evolution.rollouts", "2"),
    *("--train.steps", "500", "--train.prefill", "64"),
    *("--train.eval-every", "1", "--train.eval-episodes", "1", "--train.eval-max-steps", "5"),
)


@pytest.fixture
def train(toy, tiny, tmp_path):
    """Trains a staged run to so many updates; returns its folder."""
    run = tmp_path / "run"

    def to(updates, *more):
        words = ("--task", toy, "--run", str(run), *tiny, *STAGED, *more)
        assert main(["train", *words, "--train.updates", str(updates)]) == 0
        return run

    return to


def learnt(run):
    """Updates of the newest published policy."""
    return PolicyRepository(run / "policies").latest().learner_updates


def test_an_untouched_controller_is_neither_published_nor_best_nor_called_trained(train, capsys):
    run = train(8)
    assert read_json(run / "status.json")["updates"] == 8
    assert learnt(run) == 0
    assert read_best(run) is None
    assert read_json(run / "status.json")["evaluation"] == {}
    main(["evaluate", "--run", str(run), "--episodes", "1", "--checkpoint"])
    assert (
        "untrained: it was made after 8 updates, of which the first 8 train the world model alone"
        in capsys.readouterr().err
    )
    main(["evaluate", "--run", str(run), "--episodes", "1"])
    assert "untrained: it was made before the first update\n" in capsys.readouterr().err
    run = train(12, "--resume")
    assert learnt(run) > 8
    assert read_best(run)["updates"] > 8
    for network in ((), ("--checkpoint",)):
        assert main(["evaluate", "--run", str(run), "--episodes", "1", *network]) == 0
        assert "untrained" not in capsys.readouterr().err
