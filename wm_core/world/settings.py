"""Settings of the world model's parts; importable without torch."""

from __future__ import annotations

from typing import ClassVar, Literal, NamedTuple

from pydantic import Field, field_validator, model_validator

from wm_core.contract.spec import Frozen
from wm_core.parts import Part, PartSettings, PartTable
from wm_core.world.part_settings import (
    BackboneConfig,
    CategoricalConfig,
    GaussianConfig,
    GRUConfig,
    LatentConfig,
    LSTMConfig,
    MDNConfig,
    NetConfig,
    PosteriorConfig,
    SSMConfig,
    TokenGRUConfig,
    TokenLayout,
    TransformerConfig,
)

Reads = Literal["feat", "deter", "stoch"]  #: what of a latent a network reads


class LatentSizes(NamedTuple):
    """The lengths of the two halves of a latent."""

    deter: int  #: D
    stoch: int  #: of the flat stoch
    blocks: int | None = None  #: independent blocks that deter comes in; None: it is one piece

    def of(self, reads: Reads) -> int:
        """Length of what a network takes in that reads ``reads``."""
        sizes = {"deter": self.deter, "stoch": self.stoch}
        return sizes.get(reads, self.deter + self.stoch)


# ------------------------------------------------------------------ sensors and heads


class EncoderConfig(Frozen):
    """Convolutions and MLPs from observations to the embedding, and their shape in the decoder."""

    kind: Literal["k5pool", "k5s2", "k4s2", "v1", "patch"] = Field(
        "k5pool",
        description="Convolutions: pooled as in DreamerV3, strided with 5x5 or 4x4, as in v1, or "
        "patches that do not overlap.",
    )
    depth: int = Field(16, gt=0, description="Channels of the first convolution, at least 1.")
    vector_layers: int = Field(3, gt=0, description="Hidden layers for each vector, at least 1.")


class DecoderConfig(Frozen):
    """Networks from latents back to observations."""

    kind: Literal["joint", "detached", "none"] = Field(
        "joint", description="Decoder that trains latents (joint), only shows them, or none."
    )
    reads: Reads = Field("feat", description="Part of the latent that is decoded.")
    pixels: Literal["sigmoid", "linear"] = Field(
        "sigmoid", description="Output of the image decoder: a sigmoid, or linear and clipped."
    )
    start: Literal["gray", "mean"] = Field(
        "gray", description="First image of the image decoder: gray, or the data's mean colour."
    )


class HeadsConfig(Frozen):
    """The networks that predict reward and continuation from a latent, and their losses."""

    reads: Reads = Field("feat", description="Part of the latent that heads read.")
    layers: int = Field(1, gt=0, description="Hidden layers of each head, at least 1.")
    reward: Literal["twohot", "normal", "symlog"] = Field(
        "twohot", description="Distribution of rewards: two-hot bins, normal, or normal of symlog."
    )
    bins: int = Field(255, gt=2, description="Bins of two-hot heads, odd, at least 3.")
    squash: Literal["none", "tanh"] = Field("none", description="Function applied to all rewards.")
    reward_scale: float = Field(1.0, description="Weight of the reward loss.")
    cont: bool = Field(True, description="Whether episode ends are predicted.")
    cont_scale: float = Field(1.0, description="Weight of the continuation loss.")

    @field_validator("bins")
    @classmethod
    def _odd(cls, bins: int) -> int:
        if bins % 2 == 0:
            raise ValueError(f"expected an odd number of bins, got {bins}")
        return bins


# ------------------------------------------------------------------ losses


class ReconConfig(Frozen):
    """Latents learn from the reconstruction of observations."""

    scale: float = Field(1.0, description="Weight of the reconstruction losses.")
    share: float = Field(1.0, gt=0, le=1, description="Share of frames reconstructed, up to 1.")
    vector_variance: Literal["unit", "measured"] = Field(
        "unit", description="Variance of vectors' errors: 1, or each element's own, as measured."
    )
    rows_at_once: int | None = Field(
        None,
        gt=0,
        description="Images decoded at a time, each with its gradient, to save memory; None: all.",
    )


class BarlowConfig(Frozen):
    """Latents learn to agree with the embedding, without a decoder."""

    scale: float = Field(0.05, description="Weight of the Barlow Twins loss.")
    redundancy: float = Field(5e-4, description="Weight of correlations off the diagonal.")


class KLConfig(Frozen):
    """The two halves of KL(posterior || prior) and what the posterior is regularised by."""

    dyn_scale: float = Field(1.0, description="Weight of the half that trains the prior.")
    rep_scale: float = Field(0.1, description="Weight of the half that trains the posterior.")
    rep: Literal["prior", "unit", "consistency"] = Field(
        "prior", description="Posterior's target: prior, a unit one, or prior by cross entropy."
    )
    free_nats: float = Field(1.0, ge=0, description="Nats of KL without a gradient, at least 0.")
    free_over: Literal["step", "mean"] = Field(
        "step", description="Whether free nats are granted to each step or to the batch's mean."
    )
    target: float | None = Field(None, description="Nats that the KL's weight adapts to, or None.")


class BalanceConfig(Frozen):
    """How the losses of observations, rewards and dynamics are weighed against one another."""

    kind: Literal["fixed", "harmony"] = Field(
        "fixed", description="Weights of the losses: fixed as set, or learnt too (HarmonyDream)."
    )
    lr: float = Field(3e-3, gt=0, description="Learning rate of the weights that are learnt.")


class EntropyConfig(Frozen):
    """A hinge loss that keeps categorical posteriors from becoming too certain."""

    scale: float = Field(0.0, description="Weight of the entropy hinge; 0 leaves it out.")
    floor: float = Field(
        0.1,
        ge=0,
        le=1,
        description="Entropy below this share of the largest is penalised, 0 to 1.",
    )
    over: Literal["step", "mean"] = Field(
        "step", description="Whether the floor holds for each step or for the batch's mean."
    )


# ------------------------------------------------------------------ the tables

BACKBONES = PartTable(
    "backbone",
    BackboneConfig,
    gru=Part(GRUConfig, "wm_core.world.rssm:make_gru"),
    lstm=Part(LSTMConfig, "wm_core.world.backbones:LSTMBackbone"),
    token_gru=Part(TokenGRUConfig, "wm_core.world.backbones:GRUBackbone"),
    transformer=Part(TransformerConfig, "wm_core.world.backbones:TransformerBackbone"),
    ssm=Part(SSMConfig, "wm_core.world.backbones:StateSpaceBackbone"),
)
LATENTS = PartTable(
    "latent",
    LatentConfig,
    categorical=Part(CategoricalConfig, "wm_core.world.latent_dist:Categorical"),
    gaussian=Part(GaussianConfig, "wm_core.world.latent_dist:Gaussian"),
)
PRIORS = PartTable(
    "prior",
    net=Part(NetConfig, "wm_core.world.prior:NetPrior"),
    mdn=Part(MDNConfig, "wm_core.world.prior:MixturePrior"),
)
OBJECTIVES = PartTable(
    "objective",
    recon=Part(ReconConfig, "wm_core.world.objectives:Reconstruction"),
    barlow=Part(BarlowConfig, "wm_core.world.objectives:BarlowTwins"),
)


class WorldConfig(PartSettings):
    """The world model: encoder, latent, backbone, decoder, heads, and their losses' scales."""

    tables: ClassVar = {
        "backbone": BACKBONES, "latent": LATENTS, "prior": PRIORS, "objective": OBJECTIVES,
    }  # fmt: skip

    norm: Literal["rms", "layer", "none"] = Field(
        "rms", description="Normalisation behind each hidden layer of the world model."
    )
    activation: Literal["silu", "elu", "relu", "tanh"] = Field(
        "silu", description="Activation behind each hidden layer of the world model."
    )
    units: int = Field(256, gt=0, description="Width U of all other MLPs, at least 1.")
    encoder: EncoderConfig = EncoderConfig()
    decoder: DecoderConfig = DecoderConfig()

    latent: str = Field("categorical", description="Latents: categorical, gaussian, or your own.")
    categorical: CategoricalConfig = CategoricalConfig()
    gaussian: GaussianConfig = GaussianConfig()

    backbone: str = Field(
        "gru", description="Network: gru, token_gru, lstm, transformer, ssm, or own."
    )
    gru: GRUConfig = GRUConfig()
    lstm: LSTMConfig = LSTMConfig()
    token_gru: TokenGRUConfig = TokenGRUConfig()
    transformer: TransformerConfig = TransformerConfig()
    ssm: SSMConfig = SSMConfig()

    posterior: PosteriorConfig = PosteriorConfig()
    prior: str = Field("net", description="Prior over latents: net, mdn, or your own.")
    net: NetConfig = NetConfig()
    mdn: MDNConfig = MDNConfig()

    heads: HeadsConfig = HeadsConfig()
    acting: Literal["draw", "mode"] = Field(
        "draw", description="Latents while acting: drawn, or the likeliest (mode)."
    )
    discount_horizon: float = Field(
        333.0, gt=1, description="Horizon of returns in agent steps; discount is 1 - 1 / horizon."
    )
    fold_discount: bool = Field(True, description="Whether the target of cont holds the discount.")

    gradients: Literal["joint", "staged"] = Field(
        "joint", description="Whether all losses train latents (joint) or recon alone (staged)."
    )
    objective: str = Field("recon", description="Latents learn by: recon, barlow, or your own.")
    recon: ReconConfig = ReconConfig()
    barlow: BarlowConfig = BarlowConfig()
    kl: KLConfig = KLConfig()
    entropy: EntropyConfig = EntropyConfig()
    balance: BalanceConfig = BalanceConfig()

    @model_validator(mode="after")
    def _fits(self) -> WorldConfig:
        gru = self.gru
        if self.backbone == "gru" and gru.cell == "block" and gru.deter % gru.blocks:
            raise ValueError(
                f"expected world.gru.deter to be a multiple of world.gru.blocks {gru.blocks}, got "
                f"{gru.deter}; choose another --world.gru.deter or --world.gru.blocks"
            )
        ssm, transformer = self.ssm, self.transformer
        if self.backbone == "ssm" and ssm.state % ssm.blocks:
            raise ValueError(
                f"expected world.ssm.state to be a multiple of world.ssm.blocks {ssm.blocks}, got "
                f"{ssm.state}; choose another --world.ssm.state or --world.ssm.blocks"
            )
        waves = self.backbone == "transformer" and transformer.positions in ("sinusoid", "xl")
        if waves and transformer.width % 2:
            raise ValueError(
                f"world.transformer.positions {transformer.positions} needs an even "
                f"world.transformer.width, a sine and a cosine of each rate, got "
                f"{transformer.width}; choose another --world.transformer.width"
            )
        if self.prior == "mdn" and self.latent != "gaussian":
            raise ValueError("world.prior mdn needs world.latent gaussian")
        if self.prior == "mdn" and self.kl.rep == "prior":
            raise ValueError(
                "world.prior mdn needs world.kl.rep unit: a mixture has no closed-form KL"
            )
        if self.gradients == "staged" and self.recurrent:
            raise ValueError(
                "world.gradients staged needs a posterior q(z | e): choose another backbone than "
                f"{self.backbone}, whose posterior reads the past"
            )
        if self.gradients == "staged" and self.decoder.reads != "stoch":
            raise ValueError(
                "world.gradients staged needs world.decoder.reads stoch: reconstruction has no "
                "gradient beyond the latents"
            )
        if self.objective == "barlow" and self.decoder.kind == "joint":
            raise ValueError("world.objective barlow needs world.decoder.kind none or detached")
        if self.objective == "recon" and self.decoder.kind != "joint":
            raise ValueError("world.objective recon needs world.decoder.kind joint")
        if self.kl.rep == "consistency" and self.latent != "categorical":
            raise ValueError("world.kl.rep consistency needs world.latent categorical")
        if self.entropy.scale and self.latent != "categorical":
            raise ValueError("world.entropy.scale needs world.latent categorical")
        return self

    @property
    def recurrent(self) -> bool:
        """Whether the posterior is q(z | h, e), a part of the recurrence; else it is q(z | e)."""
        return bool(self.settings_of(self.backbone).recurrent)

    @property
    def sizes(self) -> LatentSizes:
        """The lengths of deter and stoch."""
        backbone, latent = self.settings_of(self.backbone), self.settings_of(self.latent)
        return LatentSizes(backbone.deter_size, latent.stoch_size, backbone.deter_blocks)

    @property
    def tokens(self) -> TokenLayout:
        """What the backbone reads of a step; only a transformer has a choice."""
        return self.transformer.tokens if self.backbone == "transformer" else "joint"

    @property
    def discount(self) -> float:
        """Factor per agent step, 1 - 1 / discount_horizon."""
        return 1.0 - 1.0 / self.discount_horizon
