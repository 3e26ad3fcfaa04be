"""CMA-ES searches for a linear controller, in imagination or in the environment.

Source: World Models, arXiv:1803.10122, sections 2.3 and 4.
"""

from __future__ import annotations

from typing import Any

import cmaes
import numpy as np
import torch
from torch import Generator, Tensor

from wm_core.behavior.actor import ActorHead, LinearController
from wm_core.behavior.base import Behavior, BehaviorLosses
from wm_core.behavior.settings import BehaviorConfig
from wm_core.contract.batch import Batch
from wm_core.contract.errors import SettingsError
from wm_core.contract.spec import ActionSpec
from wm_core.world.latent import Latent
from wm_core.world.world_model import WorldModel


class Evolution(Behavior):
    """Searches among linear controllers; one generation every few updates.

    The controller that acts is the mean of the population's distribution, which noise in the
    returns of single candidates does not move.

    Deviates: the paper lets the best candidate act, re-evaluated every 25 generations.
    """

    def __init__(
        self, action: ActionSpec, world: WorldModel, settings: BehaviorConfig, *, seed: int
    ) -> None:
        super().__init__()
        self.config, self._settings = settings, settings.evolution
        self.actor = LinearController(world.config.sizes.of(settings.reads), action)
        self.actor.requires_grad_(False)  # no gradient moves it
        self.wants_environment = self._settings.where == "env"
        self._updates, self._seed = 0, seed
        self._search: cmaes.CMA
        self.begin_search()

    def begin_search(self) -> None:
        """Begin a new search, whose mean is the present controller."""
        self._search = cmaes.CMA(
            mean=self.actor.candidate.double().cpu().numpy(),
            sigma=self._settings.sigma,
            population_size=self._settings.population,
            seed=self._seed % 2**32,  # its generator takes no larger one
        )

    def head(self, world: WorldModel) -> ActorHead:
        return ActorHead(self.actor, None, self.config.reads)

    def loss(
        self, world: WorldModel, batch: Batch[Tensor], posterior: Latent, generator: Generator
    ) -> BehaviorLosses:
        """Search one generation where it is due; it has no loss on the (B, T) windows."""
        self._updates += 1
        if self._updates % self._settings.every:
            return BehaviorLosses({}, {})
        candidates = np.stack([self._search.ask() for _ in range(self._settings.population)])
        if self._settings.where == "dream":
            returns = self._imagined_returns(world, posterior.detach(), candidates, generator)
        elif self.fitness is not None:
            returns = self.fitness(candidates, self._search.generation + 1)
        else:
            raise SettingsError(
                "behavior.evolution.where is env, but there is no environment to evaluate "
                "candidates in; choose dream, or train with --task"
            )
        self._search.tell(list(zip(candidates, (-returns).tolist(), strict=True)))
        device = next(self.actor.parameters()).device
        mean = torch.as_tensor(self._search.mean, dtype=torch.float32, device=device)
        self.actor.take(mean)
        numbers = {
            "imag_return": returns.mean(),
            "best_return": returns.max(),
            "generation": self._search.generation,
            "sigma": vars(self._search)["_sigma"],
        }
        return BehaviorLosses({}, {k: torch.tensor(float(v)) for k, v in numbers.items()})

    @torch.no_grad()
    def _imagined_returns(
        self, world: WorldModel, posterior: Latent, candidates: np.ndarray, generator: Generator
    ) -> np.ndarray:
        """(P,) mean returns of candidates (P, n), each over the same starts and draws."""
        device, horizon = posterior.deter.device, self.config.imag_horizon
        P, R = len(candidates), self._settings.rollouts
        latent = self._starts(world, posterior, P, generator)
        population = torch.as_tensor(candidates, dtype=torch.float32, device=device)
        alive, total = torch.ones(P * R, device=device), torch.zeros(P * R, device=device)
        for _ in range(horizon):
            part = latent.read(self.config.reads).unflatten(0, (P, R))
            action = self.actor.act(part, population).flatten(0, 1)
            uniform = torch.rand(
                (R, *world.dynamics.prior.noise_shape), generator=generator, device=device
            )
            uniform = uniform.repeat(P, *[1] * (uniform.ndim - 1))
            temperature = self._settings.temperature
            latent = world.imagine_step(latent, action, uniform, temperature=temperature)
            reward, cont = world.predict(latent)
            total = total + alive * reward
            alive = alive * cont
        return total.unflatten(0, (P, R)).mean(1).double().cpu().numpy()

    def _starts(
        self, world: WorldModel, posterior: Latent, repeats: int, generator: Generator
    ) -> Latent:
        """(repeats R,) the same R random states of the batch to imagine from, again and again."""
        (B, T), device = posterior.deter.shape[:2], posterior.deter.device
        wanted = self._settings.rollouts
        times = torch.randperm(T, generator=generator, device=device)[: -(-wanted // B)]
        starts = world.dynamics.imagination_starts(posterior, times)
        rows = torch.randperm(B * len(times), generator=generator, device=device)
        chosen = rows.repeat(-(-wanted // len(rows)))[:wanted].repeat(repeats)
        memory = tuple(m[chosen] for m in starts.memory)
        return Latent(starts.deter[chosen], starts.stoch[chosen], None, memory)

    def get_extra_state(self) -> dict[str, Any]:
        """The search as tensors and plain numbers; reads private fields of ``cmaes``."""
        plain: dict[str, Any] = {"updates": self._updates}
        for name, value in vars(self._search).items():
            if isinstance(value, np.ndarray):
                plain[name] = torch.from_numpy(np.array(value))
            elif isinstance(value, int | float | np.number):
                plain[name] = value.item() if isinstance(value, np.number) else value
        name, keys, position, has_gauss, gauss = self._search._rng.get_state()
        words = torch.from_numpy(np.array(keys, np.int64))
        return plain | {"rng": [name, words, position, has_gauss, gauss]}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Go on exactly where ``get_extra_state`` was taken."""
        state = dict(state)
        self._updates = state.pop("updates")
        name, keys, *rest = state.pop("rng")
        self._search._rng.set_state((name, keys.cpu().numpy().astype(np.uint32), *rest))
        for key, value in state.items():
            array = value.cpu().numpy() if isinstance(value, Tensor) else value
            setattr(self._search, key, array)
        for cached in ("_B", "_D"):  # the library computes them again from the covariance
            setattr(self._search, cached, None)
