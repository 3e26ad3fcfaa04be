"""Inputs may have any name that a recording can hold, those that torch has itself included."""

import pytest
import torch
from torch import nn

from wm_core.contract.batch import Batch
from wm_core.contract.errors import SettingsError
from wm_core.contract.spec import ActionSpec, ImageSpec, Spec, VectorSpec
from wm_core.world.encoder import ByInput
from wm_core.world.world_model import WorldModel

ODD = ("items", "values", "keys", "forward", "update", "half", "training")


def test_a_module_is_kept_for_each_input_whatever_its_name():
    names = [*dir(nn.ModuleDict()), "joints", "type_", "atype", "uitems"]
    assert {"type", *ODD} <= {*names}
    made, other = (ByInput({name: nn.Linear(1, 1) for name in names}) for _ in range(2))
    assert [*made] == [*made.keys()] == names
    assert len(made) == len(names)
    assert all(module is made[name] for name, module in made.items())
    assert all(name in made for name in names)
    assert "nothing" not in made
    other.load_state_dict(made.state_dict())
    assert all(torch.equal(made[name].weight, other[name].weight) for name in names)


def test_weights_of_other_inputs_are_called_as_in_older_checkpoints():
    made, plain = (kind({"joints": nn.Linear(1, 1)}) for kind in (ByInput, nn.ModuleDict))
    assert made.state_dict().keys() == plain.state_dict().keys()


@pytest.mark.parametrize("name", ["joint.pos", ""])
def test_a_name_that_no_weight_can_have_is_refused_in_one_line(name):
    with pytest.raises(SettingsError, match=rf"^input '{name}': expected a name of letters"):
        ByInput({name: nn.Identity()})


def test_a_world_model_learns_from_inputs_with_torch_s_own_names(config, generator):
    spec = Spec(
        images={"type": ImageSpec(height=16, width=16)},
        vectors={name: VectorSpec(size=2) for name in ODD},
        action=ActionSpec(low=(-1.0,), high=(1.0,)),
    )
    settings = config.model_copy(
        update={"recon": config.recon.model_copy(update={"vector_variance": "measured"})}
    )
    world, flag = WorldModel(spec, settings, generator=generator), torch.zeros(2, 3) > 0
    image = torch.zeros(2, 3, 16, 16, 3, dtype=torch.uint8)
    batch = Batch(
        obs={"type": image} | {name: torch.ones(2, 3, 2) for name in ODD},
        prev_action=torch.zeros(2, 3, 1),
        reward=torch.zeros(2, 3),
        is_first=flag, is_last=flag, is_terminal=flag,
    )  # fmt: skip
    start = world.dynamics.initial(2)
    losses = world.loss(batch, start, generator).representation
    assert {f"recon_loss/{name}" for name in spec.inputs} <= losses.keys()
    assert world.open_loop(batch, start, 1, generator).keys() == {*spec.inputs}
