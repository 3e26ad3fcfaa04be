"""Settings of behaviours: actor, critic, imagination and CMA-ES; importable without torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from wm_core.contract.spec import Frozen
from wm_core.parts import Part, PartSettings, PartTable


class ActorConfig(Frozen):
    """The actor's network and the distribution that it draws actions from."""

    layers: int = Field(3, gt=0, description="Hidden layers of the actor, at least 1.")
    kind: Literal["normal", "tanh_normal", "truncated_normal"] = Field(
        "normal", description="Distribution of continuous actions; choices are always one-hot."
    )
    min_std: float = Field(0.1, ge=0, description="Smallest deviation; 1 is half of the range.")
    max_std: float = Field(1.0, gt=0, description="Largest deviation of normal, above min_std.")
    std_shift: float = Field(
        2.0, description="Number added before the sigmoid of normal's deviation; 2: starts wide."
    )
    init_std: float = Field(
        5.0, gt=0, le=100, description="First deviation of tanh_normal, before tanh, up to 100."
    )
    unimix: float = Field(0.01, ge=0, lt=1, description="Share of uniform in choices, 0 to 1.")
    rows_at_once: int | None = Field(
        None,
        gt=0,
        description="Rollouts whose REINFORCE loss is taken at a time, to save memory; None: all.",
    )

    @model_validator(mode="after")
    def _fits(self) -> ActorConfig:
        if self.kind == "normal" and self.max_std <= self.min_std:
            raise ValueError(
                f"expected behavior.actor.max_std above behavior.actor.min_std {self.min_std}, "
                f"got {self.max_std}; choose another --behavior.actor.max-std, or another "
                "--behavior.actor.min-std"
            )
        return self


class CriticConfig(Frozen):
    """The critic's network, its losses and its slow copy (target network)."""

    layers: int = Field(3, gt=0, description="Hidden layers of the critic, at least 1.")
    kind: Literal["twohot", "normal", "symlog"] = Field(
        "twohot", description="Output of the critic: two-hot bins, a mean, or a symlog mean."
    )
    target_network: Literal["regularize", "bootstrap", "none"] = Field(
        "regularize",
        description="Slow copy: holds the critic back, makes its targets, or neither.",
    )
    target_rate: float = Field(
        0.02, ge=0, le=1, description="Share of the critic that its slow copy takes at each move."
    )
    target_every: int = Field(1, gt=0, description="Updates per move of the slow copy, from 1.")
    target_scale: float = Field(1.0, ge=0, description="Weight of the loss towards the slow copy.")
    scale: float = Field(1.0, ge=0, description="Weight of the critic's loss in imagination.")
    replay_scale: float = Field(0.3, ge=0, description="Weight of the loss on recorded rewards.")
    rows_at_once: int | None = Field(
        None,
        gt=0,
        description="Rollouts valued and learnt from at a time, to save memory; None: all.",
    )


class EntropyBonusConfig(Frozen):
    """The entropy bonus in the actor's loss."""

    scale: float = Field(3e-4, ge=0, description="Weight of the entropy bonus for the actor.")
    rule: Literal["fixed", "hinge", "adaptive"] = Field(
        "fixed", description="Bonus at a fixed weight, only below the target, or adapted to it."
    )
    target: float = Field(0.1, description="Share of the entropy range to keep, if not fixed.")
    over: Literal["step", "mean"] = Field(
        "step", description="Whether a hinge's target holds for each state or for their mean."
    )


class ReturnScaleConfig(Frozen):
    """The running statistics of returns that scale advantages."""

    rate: float = Field(0.01, gt=0, le=1, description="Rate of the running return statistics.")
    low: float = Field(0.05, ge=0, le=1, description="Lower percentile of returns, 0 to 1.")
    high: float = Field(0.95, ge=0, le=1, description="Upper percentile of returns, 0 to 1.")
    limit: float = Field(
        1.0,
        gt=0,
        description="Smallest number that advantages are divided by, in units of return.",
    )

    @model_validator(mode="after")
    def _fits(self) -> ReturnScaleConfig:
        if self.low >= self.high:
            raise ValueError(
                f"expected behavior.returns.low below behavior.returns.high {self.high}, got "
                f"{self.low}"
            )
        return self


class CloneConfig(Frozen):
    """Behaviour cloning: recorded actions teach the actor too, beside what it learns in dreams."""

    scale: float = Field(
        0.0, ge=0, description="Weight of recorded actions' log-likelihood; 0: no cloning."
    )
    steps: Literal["all", "demonstrations", "interventions", "both"] = Field(
        "all",
        description="Steps that are cloned: all, demonstrations, interventions, or the last both.",
    )


class EvolutionConfig(Frozen):
    """CMA-ES over a linear controller.  Source: World Models, arXiv:1803.10122."""

    population: int = Field(64, gt=3, description="Candidates of a generation, at least 4.")
    sigma: float = Field(0.1, gt=0, description="Initial step size of the search, above 0.")
    rollouts: int = Field(16, gt=0, description="Rollouts of a candidate; their mean counts.")
    where: Literal["dream", "env"] = Field(
        "dream", description="Evaluate candidates in imagination (dream) or the environment."
    )
    temperature: float = Field(1.15, gt=0, description="Temperature; above 1: more random draws.")
    every: int = Field(1, gt=0, description="Updates between two generations, at least 1.")


class BehaviorConfig(PartSettings):
    """The behaviour, and how it learns in imagination."""

    learner: str = Field(
        "actor_critic", description="Behaviour: actor_critic, evolution, or your own."
    )
    reads: Literal["feat", "stoch"] = Field(
        "feat", description="Part of the latent that acts; with stoch a policy has no memory."
    )
    gradient: Literal["reinforce", "dynamics", "mix", "auto"] = Field(
        "reinforce", description="Actor's gradient; auto: dynamics, or reinforce for choices."
    )
    baseline: Literal["detached", "attached"] = Field(
        "detached", description="Whether gradients through the dynamics pass the baseline too."
    )
    start_weight: Literal["predicted", "recorded"] = Field(
        "predicted", description="Weight of a dream's start: predicted cont, or what was recorded."
    )
    mix: float = Field(0.1, ge=0, le=1, description="Share of REINFORCE in the gradient mix.")
    objective: Literal["value", "rewards"] = Field(
        "value", description="Actor maximises values, or the imagined rewards alone."
    )
    imag_horizon: int = Field(15, gt=0, description="Imagined steps of a rollout, at least 1.")
    imag_starts: int | None = Field(
        None, gt=0, description="Rollouts per update; None: one per step."
    )
    lam: float = Field(0.95, ge=0, le=1, description="Lambda of returns: 0 is TD, 1 Monte Carlo.")
    units: int | None = Field(
        None, gt=0, description="Width of actor and critic; None: world.units."
    )
    explore_noise: float = Field(0.0, ge=0, description="Deviation of noise on collected actions.")
    policy_scale: float = Field(1.0, description="Weight of the actor's loss, usually 1.")
    advantage: Literal["range", "std", "none"] = Field(
        "range", description="Divisor of advantages: range of returns, deviation, or none."
    )
    returns: ReturnScaleConfig = ReturnScaleConfig()
    entropy: EntropyBonusConfig = EntropyBonusConfig()
    actor: ActorConfig = ActorConfig()
    critic: CriticConfig = CriticConfig()
    clone: CloneConfig = CloneConfig()
    evolution: EvolutionConfig = EvolutionConfig()

    @model_validator(mode="after")
    def _fits(self) -> BehaviorConfig:
        if self.entropy.rule != "fixed" and self.actor.kind != "normal":
            raise ValueError(
                f"behavior.entropy.rule {self.entropy.rule} needs behavior.actor.kind normal, "
                f"whose deviation has a range; got {self.actor.kind}"
            )
        if self.entropy.rule != "fixed" and not self.actor.min_std:
            raise ValueError(
                f"behavior.entropy.rule {self.entropy.rule} needs behavior.actor.min_std above 0, "
                "got 0: a deviation of 0 has no smallest entropy; choose another "
                "--behavior.actor.min-std, such as 0.1"
            )
        if self.clone.scale and self.learner == "evolution":
            raise ValueError(
                "behavior.clone.scale needs a behavior that learns by gradients, such as "
                "actor_critic; got behavior.learner evolution"
            )
        return self

    @property
    def of_learner(self) -> Frozen:
        """The settings of the chosen behaviour: these, or those of a registered one."""
        return self.own.get(self.learner, self)


#: a behaviour is made by ``make(action, world, settings, seed=)``, see ``behavior.base.Behavior``
BEHAVIORS = PartTable(
    "behavior",
    actor_critic=Part(BehaviorConfig, "wm_core.behavior.actor_critic:ActorCritic"),
    evolution=Part(BehaviorConfig, "wm_core.behavior.evolution:Evolution"),
)
BehaviorConfig.tables = {"learner": BEHAVIORS}
