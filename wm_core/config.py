"""Typed, frozen, strict settings: every default stands here once.

A preset (``presets``) is a value of ``Config``; the command line overrides single fields.  The
defaults are DreamerV3's (Hafner et al. 2025, Nature; arXiv:2301.04104) unless said otherwise.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from wm_core.contract.spec import Frozen

Part = Literal["feat", "deter", "stoch"]  #: what of a latent a network reads


class TransformerConfig(Frozen):
    """A causal transformer over a sliding window; its output is ``deter``."""

    width: int = Field(256, gt=0)
    layers: int = Field(4, gt=0)
    heads: int = Field(4, gt=0)
    head: int = Field(64, gt=0)  #: size of each head
    hidden: int = Field(1024, gt=0)  #: width of the two-layer networks
    window: int = Field(64, gt=1)  #: tokens that a layer sees, and that acting carries
    order: Literal["pre", "post"] = "pre"
    positions: Literal["none", "sinusoid", "age", "shaw", "xl"] = "age"
    activation: Literal["relu", "silu", "gelu"] = "silu"
    readout: Literal["last", "all"] = "last"  #: deter is the last layer's output or every layer's
    dropout: float = Field(0.0, ge=0, lt=1)
    #: one token per step of z and a; one each of r, z and a; or the start state, then actions only
    tokens: Literal["joint", "split", "actions"] = "joint"

    @property
    def outputs(self) -> int:
        """Length of what a step answers."""
        return self.width * (self.layers if self.readout == "all" else 1)


class SSMConfig(Frozen):
    """A stack of diagonal state-space layers; its output is ``deter``."""

    state: int = Field(128, gt=0)  #: complex states of a layer
    layers: int = Field(4, gt=0)
    blocks: int = Field(8, gt=0)  #: HiPPO blocks that the initial dynamics are made of
    dropout: float = Field(0.0, ge=0, lt=1)


class WorldConfig(Frozen):
    """The world model: encoder, latent, backbone, decoder, heads, and their losses' scales."""

    # layers
    norm: Literal["rms", "layer", "none"] = "rms"  #: of every hidden layer
    activation: Literal["silu", "elu", "relu", "tanh"] = "silu"
    units: int = Field(256, gt=0)  #: U, width of every MLP

    # observation to embed, and back
    encoder: Literal["k5pool", "k4s2", "v1"] = (
        "k5pool"  #: convolutions: V3's, strided, Dreamer v1's
    )
    depth: int = Field(16, gt=0)  #: convolution channels at the first level
    vector_layers: int = Field(3, gt=0)  #: of a vector's encoder and decoder
    pixels: Literal["sigmoid", "linear"] = "sigmoid"  #: the decoder's output
    decoder: Literal["joint", "detached", "none"] = "joint"  #: detached: only to be looked at
    decoder_reads: Part = "feat"

    # latent
    latent: Literal["categorical", "gaussian"] = "categorical"
    groups: int = Field(32, gt=0)  #: S, of categorical latents
    classes: int = Field(16, gt=1, le=256)  #: K, of categorical latents
    gaussians: int = Field(30, gt=0)  #: Z, of Gaussian latents
    latent_min_std: float = Field(0.1, ge=0)  #: of Gaussian latents
    unimix: float = Field(0.01, ge=0, lt=1)

    # backbone; a GRU's posterior is recurrent, q(z | h, e), the others' is q(z | e)
    backbone: Literal["gru", "lstm", "transformer", "ssm"] = "gru"
    cell: Literal["block", "layer_norm", "plain"] = "block"  #: of the GRU
    deter: int = Field(2048, gt=0)  #: D of gru, lstm and ssm; a transformer's follows from its own
    hidden: int = Field(256, gt=0)  #: width of the projections into and out of the recurrence
    blocks: int = Field(8, gt=0)  #: blocks of the block-diagonal GRU
    prior_layers: int = Field(2, gt=0)
    posterior_layers: int = Field(1, ge=0)
    transformer: TransformerConfig = TransformerConfig()
    ssm: SSMConfig = SSMConfig()
    prior: Literal["net", "mdn"] = "net"  #: mdn: a mixture of Gaussians per dimension
    mixtures: int = Field(5, gt=0)  #: M, of the mdn

    # heads
    heads_read: Part = "feat"
    head_layers: int = Field(1, gt=0)  #: of the reward and cont heads
    reward_head: Literal["twohot", "normal", "symlog"] = "twohot"
    reward_squash: Literal["none", "tanh"] = "none"  #: of rewards, before they are learnt
    bins: int = Field(255, gt=2)  #: of the two-hot heads
    cont: bool = True  #: whether ends are predicted; else nothing ever ends in imagination
    discount_horizon: float = Field(333.0, gt=1)  #: agent steps; the discount is 1 - 1/333
    fold_discount: bool = True  #: whether cont's target holds the discount already

    # losses
    gradients: Literal["joint", "staged"] = "joint"  #: staged: latents learn from recon alone
    objective: Literal["recon", "barlow"] = "recon"
    recon_scale: float = 1.0
    recon_share: float = Field(1.0, gt=0, le=1)  #: of a batch's frames that are reconstructed
    barlow_scale: float = 0.05  #: R2-Dreamer's
    barlow_redundancy: float = 5e-4  #: of the off-diagonal, R2-Dreamer's
    reward_scale: float = 1.0
    cont_scale: float = 1.0
    dyn_scale: float = 1.0
    rep_scale: float = 0.1
    rep: Literal["prior", "unit", "consistency"] = "prior"  #: what the posterior is drawn to
    free_nats: float = Field(1.0, ge=0)
    free_over: Literal["step", "mean"] = "step"  #: whether each step is floored or their mean
    kl_target: float | None = None  #: nats that the KL's scale is adapted to; None: it is fixed
    entropy_scale: float = 0.0  #: of the hinge below
    entropy_floor: float = 0.1  #: share of the largest entropy below which a posterior pays

    @model_validator(mode="after")
    def _fits(self) -> WorldConfig:
        if self.backbone == "gru" and self.cell == "block" and self.deter % self.blocks:
            raise ValueError(f"deter {self.deter} is no multiple of {self.blocks} blocks")
        if self.bins % 2 == 0:
            raise ValueError(f"expected an odd number of bins, got {self.bins}")
        if self.prior == "mdn" and self.latent != "gaussian":
            raise ValueError("prior mdn wants latent gaussian")
        if self.prior == "mdn" and self.rep == "prior":
            raise ValueError("prior mdn wants rep unit: there is no KL from a mixture")
        if self.gradients == "staged" and self.backbone == "gru":
            raise ValueError("gradients staged wants a posterior without memory: not a gru's")
        if self.gradients == "staged" and self.decoder_reads != "stoch":
            raise ValueError("gradients staged wants decoder_reads stoch: recon stops at latents")
        if self.objective == "barlow" and self.decoder == "joint":
            raise ValueError("objective barlow wants decoder none or detached")
        if self.objective == "recon" and self.decoder != "joint":
            raise ValueError("objective recon wants decoder joint")
        if self.rep == "consistency" and self.latent != "categorical":
            raise ValueError("rep consistency wants latent categorical")
        if self.entropy_scale and self.latent != "categorical":
            raise ValueError("entropy_scale wants latent categorical")
        return self

    @property
    def deter_size(self) -> int:
        """D."""
        return self.transformer.outputs if self.backbone == "transformer" else self.deter

    @property
    def tokens(self) -> Literal["joint", "split", "actions"]:
        """What the backbone reads of a step; only a transformer has a choice."""
        return self.transformer.tokens if self.backbone == "transformer" else "joint"

    @property
    def stoch_size(self) -> int:
        """Length of the flat stoch."""
        return self.gaussians if self.latent == "gaussian" else self.groups * self.classes

    @property
    def discount(self) -> float:
        """Factor per agent step, 1 - 1 / discount_horizon."""
        return 1.0 - 1.0 / self.discount_horizon

    def width_of(self, part: Part) -> int:
        """Length of what a network reads that reads ``part``."""
        sizes = {"deter": self.deter_size, "stoch": self.stoch_size}
        return sizes.get(part, sum(sizes.values()))


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

    learner: Literal["actor_critic", "evolution"] = "actor_critic"
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

    @model_validator(mode="after")
    def _fits(self) -> BehaviorConfig:
        if self.entropy_rule != "fixed" and self.action != "normal":
            raise ValueError(
                f"entropy_rule {self.entropy_rule} wants action normal, whose spread has a range"
            )
        return self


class OptimConfig(Frozen):
    """LaProp behind adaptive gradient clipping, or Adam behind a global norm."""

    kind: Literal["laprop", "adam"] = "laprop"
    lr: float = Field(4e-5, gt=0)  #: of the world model, and of whatever has none of its own
    dynamics_lr: float | None = Field(None, gt=0)  #: of backbone, prior and heads
    actor_lr: float | None = Field(None, gt=0)
    critic_lr: float | None = Field(None, gt=0)
    warmup: int = Field(1000, ge=0)  #: updates of linear warm-up
    agc: float = 0.3  #: laprop
    agc_floor: float = 1e-3  #: laprop
    clip: float = 100.0  #: adam: largest norm of the world model's gradient
    behavior_clip: float = 100.0  #: adam: the same of the actor's and of the critic's
    decay: float = 0.0  #: adam: weight decay, apart from the gradient
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-20
    precision: Literal["auto", "float32", "conv_bfloat16", "bfloat16"] = "auto"
    stages: tuple[int, int] | None = None  #: updates of representation alone, then dynamics alone


class ReplayConfig(Frozen):
    """How experience is kept and drawn."""

    batch: int = Field(16, gt=0)  #: B
    length: int = Field(64, gt=1)  #: T
    cache_bytes: int = Field(1_000_000_000, ge=0)  #: decoded images kept in memory
    store_max_bytes: int = Field(50_000_000_000, gt=0)  #: on disk; the oldest go first
    latents: int = Field(1_000_000, ge=0)  #: steps whose latents the learner remembers
    online_queue: bool = True  #: train once on each new window, freshest first


class TrainConfig(Frozen):
    """How long and how hard to train, and what is written while it does."""

    steps: int = Field(500_000, gt=0)  #: agent steps to collect in sim
    updates: int | None = Field(None, gt=0)  #: stop at so many; None: what data and ratio allow
    #: stop after so many minutes of this process's CPU time, all that it does included; with one
    #: thread, other work on the machine changes the wall time but not what a run gets
    minutes: float | None = Field(None, gt=0)
    envs: int = Field(1, gt=0)  #: environments that act side by side
    prefill: int = Field(1000, ge=0)  #: agent steps before the first update, random ones in sim
    replay_ratio: float = Field(512.0, gt=0)  #: replayed agent steps per collected one, at most
    publish_every: int = Field(200, ge=50)  #: updates between published policies
    checkpoint_every_s: float = Field(120.0, gt=0)
    checkpoint_latents_bytes: int = Field(256_000_000, ge=0)  #: a larger cache is left out
    keep_checkpoints: int = Field(2, gt=0)
    keep_policies: int = Field(5, gt=0)
    log_every: int = Field(20, gt=0)  #: updates between metric lines
    video_every: int = Field(2000, ge=0)  #: updates between films, one at the end beside; 0: none
    eval_every: int = Field(10_000, ge=0)  #: agent steps between evaluations in sim; 0: never
    eval_episodes: int = Field(5, gt=0)


class Config(Frozen):
    """Everything that decides a training run."""

    preset: str = "dreamer_v3"
    size: str = "12m"
    seed: int = 0
    world: WorldConfig = WorldConfig()
    behavior: BehaviorConfig = BehaviorConfig()
    optim: OptimConfig = OptimConfig()
    replay: ReplayConfig = ReplayConfig()
    train: TrainConfig = TrainConfig()

    @model_validator(mode="after")
    def _fits(self) -> Config:
        world, transformer, tokens = self.world, self.world.transformer, self.world.tokens
        if self.behavior.reads == "stoch" and world.backbone == "gru":
            raise ValueError("behavior.reads stoch wants q(z | e): not a gru's posterior")
        if self.behavior.reads == "feat" and tokens != "joint":
            raise ValueError(
                f"world.transformer.tokens {tokens} wants behavior.reads stoch: a robot that acts "
                "knows no rewards, and has no dream to begin"
            )
        longest = max(self.replay.length, self.behavior.imag_horizon + 1)
        if tokens == "actions" and transformer.window < longest:
            raise ValueError(
                f"world.transformer.window {transformer.window}: with tokens actions it must hold "
                f"a whole window and a whole dream, {longest} tokens"
            )
        return self
