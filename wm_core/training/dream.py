"""What a world model imagines of recorded steps beside what happened, for every world model.

The model sees the first steps and then gets the recorded actions alone.  Pictures need a decoder;
rewards and surprise need none.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from wm_core.agents.agent import AgentCore
from wm_core.contract.batch import Batch
from wm_core.world.latent import Latent, to_device

_ALMOST_1 = 1.0 - 1e-6  #: largest magnitude of a squashed reward, whose own would be infinite


@dataclass(frozen=True)
class EpisodeDream:
    """T steps of one recording and what the model made of them."""

    observed: int  #: steps that the model saw; what follows is imagined
    reward: np.ndarray  #: (T,) that arrived
    reward_seen: np.ndarray  #: (T,) predicted by a model that saw every step
    reward_imagined: np.ndarray  #: (T,) the same up to ``observed``, then imagined
    surprise: np.ndarray  #: (T,) nats of the prior against the posterior; NaN where it has no past
    surprise_is_kl: bool  #: False: the negative log density of the posterior's sample
    camera: str = ""  #: whose pictures these are; empty without any
    truth: np.ndarray | None = None  #: (T, H, W, 3) uint8
    imagined: np.ndarray | None = None  #: (T, H, W, 3) uint8, reconstructed up to ``observed``
    reach: int | None = None  #: most steps in a row that this model dreams of; None: any number
    #: by name, (T, n) measured and (T, n) reconstructed or imagined, without a decoder none
    vectors: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)

    @property
    def difference(self) -> np.ndarray | None:
        """Absolute difference of the pictures, (T, H, W, 3) uint8; None without any."""
        if self.truth is None or self.imagined is None:
            return None
        return np.abs(self.truth.astype(np.int16) - self.imagined).astype(np.uint8)

    @property
    def limit(self) -> str:
        """Say how long a dream of this model can be; empty where it can be of any length."""
        if self.reach is None:
            return ""
        return (
            f"a dream has at most {self.reach} steps: this world model sees no more "
            "(world.transformer.window), and must see the first"
        )

    @property
    def error(self) -> np.ndarray | None:
        """Mean absolute difference of each step's picture, (T,) in levels of 255."""
        difference = self.difference
        return None if difference is None else difference.mean((1, 2, 3))


@torch.no_grad()
def dream(
    agent: AgentCore, batch: Batch[np.ndarray], observed: int, *, seed: int, camera: str = ""
) -> EpisodeDream:
    """Let ``agent`` see the first steps of a recording, and imagine the rest from its actions.

    Nothing of the agent changes, and its draws come from a generator of their own.

    Args:
        agent: on any device.
        batch: one window (1, T, ...), within an episode; T is at most the world model's ``reach``.
        observed: steps that the model sees, 1 .. T - 1.
        seed: of the latents' noise.
        camera: whose pictures are drawn; empty: the first.
    """
    world, device, (count, times) = agent.world, agent.device, batch.reward.shape
    if count != 1 or not 0 < observed < times:
        raise ValueError(f"expected one window of more than {observed} steps, got {count, times}")
    if world.reach is not None and times > world.reach:
        raise ValueError(f"expected a window of at most {world.reach} steps, got {times}")
    generator = torch.Generator(device).manual_seed(seed)

    def rand(*shape: int) -> Tensor:
        return torch.rand((1, *shape), generator=generator, device=device)

    tensors, dynamics = to_device(batch, device), world.dynamics
    uniform = rand(times, *dynamics.latent_dist.shape)
    posterior, _ = world.observe(tensors, agent.initial(1), uniform)
    last = torch.tensor([observed - 1], device=device)
    latent, latents = dynamics.imagination_starts(posterior, last), list[Latent]()
    for t in range(observed, times):
        action = tensors.prev_action[:, t]
        latent = world.imagine_step(latent, action, rand(*dynamics.prior.noise_shape))
        latents.append(latent)
    mixed = Latent(
        torch.cat([posterior.deter[:, :observed], *(x.deter.unsqueeze(1) for x in latents)], 1),
        torch.cat([posterior.stoch[:, :observed], *(x.stoch.unsqueeze(1) for x in latents)], 1),
    )
    decoded = {} if world.decoder is None else world.decoder(mixed)
    decoded = {key: value[0].cpu().numpy() for key, value in decoded.items()}
    images = {key: image for key, image in agent.spec.images.items() if key in decoded}
    camera = camera if camera in images else next(iter(images), "")
    seen = Latent(posterior.deter, posterior.stoch)
    return EpisodeDream(
        observed=observed,
        reward=batch.reward[0],
        reward_seen=_rewards(agent, seen),
        reward_imagined=_rewards(agent, mixed),
        surprise=_surprise(agent, posterior, tensors.is_first),
        surprise_is_kl=dynamics.prior.has_kl,
        camera=camera,
        reach=world.reach,
        truth=images[camera].picture(batch.obs[camera][0]) if camera else None,
        imagined=images[camera].picture(decoded[camera]) if camera else None,
        vectors={
            key: (batch.obs[key][0], decoded[key]) for key in agent.spec.vectors if key in decoded
        },
    )


def _rewards(agent: AgentCore, latent: Latent) -> np.ndarray:
    """(T,) rewards that ``latent`` (1, T) predicts, in units of the task."""
    predicted = agent.world.predict(latent)[0][0]
    if agent.config.world.heads.squash == "tanh":
        predicted = predicted.clamp(-_ALMOST_1, _ALMOST_1).atanh()
    return predicted.float().cpu().numpy()


def _surprise(agent: AgentCore, posterior: Latent, is_first: Tensor) -> np.ndarray:
    """(T,) nats between prior and ``posterior`` (1, T); NaN where the model knows no past."""
    dynamics = agent.world.dynamics
    nats = dynamics.prior.loss(dynamics.prior(posterior.deter), posterior)
    counted = dynamics.predictable(is_first)
    unknown = is_first.clone() if counted is None else is_first | ~counted
    unknown[:, 0] = True
    return nats.masked_fill(unknown, float("nan"))[0].float().cpu().numpy()
