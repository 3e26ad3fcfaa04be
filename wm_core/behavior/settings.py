"""Settings of actor, critic and CMA-ES; importable without torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from pydantic import Field, SerializeAsAny, model_validator

from wm_core.contract.spec import Frozen
from wm_core.parts import Part, PartTable, with_own_settings


class EvolutionConfig(Frozen):
    """CMA-ES over a linear controller.  Source: World Models, arXiv:1803.10122."""

    population: int = Field(64, gt=1)
    sigma: float = Field(0.1, gt=0)  #: initial step size
    rollouts: int = Field(16, gt=0)  #: of each candidate, whose mean counts
    where: Literal["dream", "env"] = "dream"
    temperature: float = Field(1.15, gt=0)  #: of the dream: how surprising its draws are
    every: int = Field(1, gt=0)  #: updates between two generations


class BehaviorConfig(Frozen):
    """The actor, and what it is trained with in imagination."""

    learner: str = "actor_critic"
    reads: Literal["feat", "stoch"] = "feat"  #: with stoch, the exported policy has no memory
    #: auto: through the dynamics for continuous actions, REINFORCE for discrete ones
    gradient: Literal["reinforce", "dynamics", "mix", "auto"] = "reinforce"
    mix: float = Field(0.1, ge=0, le=1)  #: share of REINFORCE in the mix
    objective: Literal["value", "rewards"] = "value"  #: rewards: the imagined ones and no more
    imag_horizon: int = Field(15, gt=0)  #: T_imag
    imag_starts: int | None = None  #: imagined starts per update; None: every posterior
    lam: float = Field(0.95, ge=0, le=1)
    units: int | None = None  #: width of actor and critic; None: the world model's
    actor_layers: int = 3
    critic_layers: int = 3

    # how actions are drawn
    action: Literal["normal", "tanh_normal", "truncated_normal"] = "normal"  #: continuous ones
    min_std: float = 0.1
    max_std: float = 1.0
    init_std: float = 5.0  #: of tanh_normal
    unimix: float = Field(0.01, ge=0, lt=1)  #: of discrete ones
    explore_noise: float = Field(0.0, ge=0)  #: deviation of noise on collected actions, clipped

    # what an actor is paid for
    entropy: float = 3e-4
    entropy_rule: Literal["fixed", "hinge", "adaptive"] = "fixed"
    entropy_target: float = 0.1  #: share of the range of entropies, for hinge and adaptive
    policy_scale: float = 1.0
    advantage: Literal["range", "std", "none"] = "range"  #: what advantages are divided by
    return_rate: float = 0.01  #: of the running statistics
    return_low: float = 0.05
    return_high: float = 0.95
    return_limit: float = 1.0  #: returns are never scaled up

    # critic
    critic: Literal["twohot", "normal", "symlog"] = "twohot"
    slow: Literal["pull", "target", "none"] = "pull"  #: what the critic's slow copy is for
    slow_rate: float = 0.02  #: of the slow critic's average
    slow_every: int = Field(1, gt=0)  #: updates between two of its moves
    slow_scale: float = 1.0  #: of the pull
    value_scale: float = 1.0
    replay_value_scale: float = 0.3

    evolution: EvolutionConfig = EvolutionConfig()
    own: dict[str, SerializeAsAny[Frozen]] = Field(
        {}, description="Settings of registered behaviours, by the name of the behaviour"
    )

    @model_validator(mode="before")
    @classmethod
    def _own(cls, values: Any) -> Any:
        """Make the settings of behaviours from outside, with defaults for the chosen one."""
        return with_own_settings(values, {"learner": BEHAVIORS})

    @model_validator(mode="after")
    def _fits(self) -> BehaviorConfig:
        if self.entropy_rule != "fixed" and self.action != "normal":
            raise ValueError(
                f"entropy_rule {self.entropy_rule} wants action normal, whose spread has a range"
            )
        return self

    @property
    def of_learner(self) -> Frozen:
        """The settings of the chosen behaviour: these, or those of a registered one."""
        return self if BEHAVIORS.is_builtin(self.learner) else self.own[self.learner]


#: a behaviour is made by ``make(action, world, settings, seed=)``, see ``behavior.base.Behavior``
BEHAVIORS: PartTable[Callable[..., Any]] = PartTable(
    "behavior",
    {
        "actor_critic": Part(BehaviorConfig, "wm_core.behavior.actor_critic:ActorCritic"),
        "evolution": Part(BehaviorConfig, "wm_core.behavior.evolution:Evolution"),
    },
)
