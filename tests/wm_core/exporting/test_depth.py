"""A depth camera from a Gymnasium environment to the file that a robot runs."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from wm_core.contract.conformance import check_env, check_policy
from wm_core.contract.errors import SpecMismatch
from wm_core.contract.image import to_network
from wm_core.contract.inputs import Depth
from wm_core.contract.policy_folder import PolicyFolder
from wm_core.contract.runner import PolicyRunner
from wm_core.contract.spec import ActionSpec, Spec
from wm_core.contract.step import Step
from wm_core.exporting.exporter import PolicyExporter
from wm_core.replay.sampler import Sampler
from wm_core.store.env_recorder import EnvRecorder
from wm_core.store.ledger import LEDGER_NAME, Ledger
from wm_core.store.reader import Store
from wm_core.training.rollout_video import render
from wm_core.training.spaces import ObsReader
from wm_core.training.tasks import spec_of
from wm_core.world.latent import to_device

pytestmark = pytest.mark.long

FAR_MM = 4000


class Corridor(gymnasium.Env):
    """Walls at a distance that grows with each step; a corner of the picture is never known."""

    metadata = {"render_fps": 20}  # noqa: RUF012
    observation_space = spaces.Dict(
        {"depth": spaces.Box(0, FAR_MM, (32, 32, 1), np.uint16)}  # millimetres
    )
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._near = 500 + int(self.np_random.integers(500))
        return self._look(), {}

    def step(self, action):
        self._near += 100
        done = self._near > 3000
        return self._look(), 1.0 * done, done, False, {}

    def _look(self):
        row = np.linspace(self._near, 3900, 32).astype(np.uint16)
        depth = np.repeat(row[:, None, None], 32, axis=1)
        depth[:4, :4] = 0
        return {"depth": depth}


@pytest.fixture(scope="module")
def spec():
    return spec_of(Corridor(), image_size=32)


@pytest.fixture(scope="module")
def store(spec, tmp_path_factory):
    """Two episodes of the corridor, through chunks into a store."""
    root, env = tmp_path_factory.mktemp("store"), Corridor()
    ledger = Ledger(root / LEDGER_NAME)
    recorder = EnvRecorder(root, ledger, robot="sim", task="corridor", spec=spec)
    for episode in range(2):
        seen, _ = env.reset(seed=episode)
        reward, end, first = 0.0, False, True
        while True:
            obs = ObsReader(env.observation_space, {}).read(seen, spec)
            recorder.add(Step(obs, np.zeros(1, np.float32), reward, first, end, end))
            if end:
                break
            seen, reward, end, _, _ = env.step(env.action_space.sample())
            first = False
    recorder.seal()
    ledger.close()
    store = Store(root, cache_bytes=10**7)
    store.refresh()
    yield store
    store.close()


@pytest.fixture(scope="module")
def trained(small, spec, store):
    """An agent after a few updates from the store, and a batch of what it learnt from."""
    parts = small("dreamer_v3")
    parts.spec = spec
    agent, generator = parts.agent(), torch.Generator().manual_seed(0)
    sampler = Sampler(store, batch=4, length=6, rng=np.random.default_rng(0))
    losses = []
    for _ in range(8):
        batch = sampler.sample()
        metrics, _ = agent.update(to_device(batch), None, generator)
        losses.append({k: float(v) for k, v in metrics.items()})
    return agent, parts.config, batch, losses


def test_the_box_of_a_depth_camera_gives_its_range(spec):
    assert spec.images == {"depth": Depth(height=32, width=32, near_mm=0, far_mm=FAR_MM)}
    assert Spec.model_validate_json(spec.model_dump_json()) == spec
    assert '"kind":"depth","height":32' in spec.model_dump_json()
    check_env(Corridor())


def test_distances_come_out_of_the_store_as_they_went_in(store):
    batch = Sampler(store, batch=2, length=4, rng=np.random.default_rng(0)).sample()
    depth = batch.obs["depth"]
    assert (depth.dtype, depth.shape) == (np.uint16, (2, 4, 32, 32, 1))
    assert not depth[..., :4, :4, 0].any()
    np.testing.assert_array_equal(depth[..., -1, :, 0], 3900)


def test_an_agent_learns_from_depth_and_its_pictures_show_it(trained):
    agent, _, batch, losses = trained
    assert all(np.isfinite(list(loss.values())).all() for loss in losses)
    assert losses[-1]["recon_loss/depth"] < losses[0]["recon_loss/depth"]
    video = render(agent, batch, seed=0, observed=3)
    assert video.real.shape == video.model.shape == (4, 6, 32, 32, 3)
    assert not video.real[:, :, :4, :4].any()  # the unknown is black


def test_an_unknown_distance_teaches_nothing(trained):
    agent, _, batch, _ = trained
    world, tensors = agent.world, to_device(batch)
    latent, seen = agent.initial(4), tensors.first(1)

    def loss(depth):
        return world.decoder.loss(latent, {"depth": depth})["depth"]

    depth = seen.obs["depth"][:, 0].clone()
    depth[:, :, :] = 0
    loss_of_nothing = loss(depth)
    torch.testing.assert_close(loss_of_nothing, torch.zeros_like(loss_of_nothing))
    depth[:, 16:] = 3900
    assert (loss(depth) > 10.0).all()


def test_the_exported_file_takes_millimetres_and_proves_itself(trained, spec, tmp_path):
    agent, config, _, _ = trained
    export = PolicyExporter(agent, spec, config).export(1, 8, 40, golden_steps=20)
    PolicyFolder(tmp_path).write(*export, version=1, learner_updates=8)
    runner = check_policy(tmp_path)
    assert isinstance(runner, PolicyRunner)
    assert runner.card.inputs[0].dtype == "uint16"
    with pytest.raises(SpecMismatch, match="uint16"):
        runner.spec.check_obs({"depth": np.zeros((32, 32, 1), np.uint8)})


def test_a_larger_frame_is_thinned_so_that_no_distance_is_made_up():
    frame = np.zeros((64, 64, 1), np.uint16)
    frame[:, 32:] = 3000
    image = to_network(frame, Depth(height=32, width=32))
    assert set(np.unique(image)) == {0, 3000}
    assert (image[:, 16:] == 3000).all()


def test_a_range_without_extent_is_refused():
    with pytest.raises(ValueError, match="near_mm 500 must be below far_mm 500"):
        Spec(
            images={"depth": Depth(near_mm=500, far_mm=500)},
            action=ActionSpec(low=(-1.0,), high=(1.0,)),
        )
