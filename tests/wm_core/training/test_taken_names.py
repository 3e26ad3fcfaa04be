"""A spec whose inputs are called like a policy's own is refused before anything is trained."""

import pytest

from wm_core.cli.main import main
from wm_core.contract.spec import ActionSpec, Spec, VectorSpec


@pytest.mark.parametrize("name", ["value", "surprise", "command", "deter", "next_stoch"])
def test_an_input_with_a_name_of_the_policy_ends_the_start_in_one_line(
    name, tiny, tmp_path, capsys
):
    vectors = {"joints": VectorSpec(size=2), name: VectorSpec(size=2)}
    spec = Spec(images={}, vectors=vectors, action=ActionSpec(low=(-1.0,), high=(1.0,)))
    file, run = tmp_path / "spec.json", tmp_path / "run"
    file.write_text(spec.model_dump_json())
    words = ("--follow", "--spec", str(file), "--run", str(run), *tiny)
    assert main(["train", *words]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert f"inputs ['{name}'] have names that a policy uses itself" in said
    assert not (run / "settings.json").exists()
