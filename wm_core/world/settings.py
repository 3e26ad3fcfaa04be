"""Settings of the world model's parts; importable without torch."""

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
