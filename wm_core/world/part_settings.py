"""Settings of the parts that can be exchanged: latents, backbones and priors; without torch."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from wm_core.contract.spec import Frozen

TokenLayout = Literal["joint", "split", "actions"]  #: what a backbone reads of a step

# ------------------------------------------------------------------ latents


class LatentConfig(Frozen):
    """Settings of a family of latent distributions; those of your own derive from it."""

    about: ClassVar[str] = ""  #: format string of the fields for a table

    @property
    def stoch_size(self) -> int:
        """Length of the flat stoch."""
        raise NotImplementedError


class CategoricalConfig(LatentConfig):
    """Latents of S groups, each one of K classes."""

    about: ClassVar[str] = "{groups}x{classes}"

    groups: int = Field(32, gt=0, description="Number of categorical variables S, at least 1.")
    classes: int = Field(16, gt=1, le=256, description="Classes K of each variable, 2 to 256.")
    unimix: float = Field(0.01, ge=0, lt=1, description="Share of uniform mixed in, 0 to 1.")

    @property
    def stoch_size(self) -> int:
        return self.groups * self.classes


class GaussianConfig(LatentConfig):
    """Latents of Z independent normals."""

    about: ClassVar[str] = "{size}"

    size: int = Field(30, gt=0, description="Number of Gaussian variables Z, at least 1.")
    min_std: float = Field(0.1, ge=0, description="Smallest standard deviation, at least 0.")

    @property
    def stoch_size(self) -> int:
        return self.size


# ------------------------------------------------------------------ backbones


class BackboneConfig(Frozen):
    """Settings of a backbone; those of your own derive from it.

    A ``recurrent`` backbone makes a ``world.base.Recurrence``, one step of an RSSM whose posterior
    q(z | h, e) is part of the recurrence.  All others make a ``world.base.Backbone``, which reads
    whole sequences and leaves the posterior q(z | e) to the embedding.
    """

    recurrent: ClassVar[bool] = False
    about: ClassVar[str] = ""  #: format string of the fields for a table

    @property
    def deter_size(self) -> int:
        """D, length of the deter that the backbone answers; the field ``deter`` by default."""
        return int(vars(self)["deter"])

    @property
    def deter_blocks(self) -> int | None:
        """Independent blocks that deter comes in; None: it is one piece."""
        return None


class GRUConfig(BackboneConfig):
    """A gated recurrent unit, the recurrence of an RSSM."""

    recurrent: ClassVar[bool] = True
    about: ClassVar[str] = "{deter}, {cell}"

    cell: Literal["block", "layer_norm", "plain"] = Field(
        "block", description="Kind of GRU: block-diagonal (V3), with layer norm (V2), or plain."
    )
    deter: int = Field(2048, gt=0, description="Size D of the recurrent state, at least 1.")
    hidden: int = Field(256, gt=0, description="Width of the layers before the GRU, at least 1.")
    blocks: int = Field(8, gt=0, description="Blocks of the block-diagonal GRU, at least 1.")

    @property
    def deter_blocks(self) -> int | None:
        return self.blocks if self.cell == "block" else None


class LSTMConfig(BackboneConfig):
    """A long short-term memory over tokens of latent and action."""

    about: ClassVar[str] = "{deter}"

    deter: int = Field(2048, gt=0, description="Size D of the LSTM's output, at least 1.")
    hidden: int = Field(256, gt=0, description="Width of the LSTM's input, at least 1.")


class TokenGRUConfig(BackboneConfig):
    """A GRU with a layer norm over tokens of latent and action, beside a posterior q(z | e).

    It is the cell ``layer_norm`` of ``gru`` without that one's posterior, which reads the past.
    """

    about: ClassVar[str] = "{deter}"

    deter: int = Field(2048, gt=0, description="Size D of the GRU's state, at least 1.")
    hidden: int = Field(256, gt=0, description="Width of the GRU's input, at least 1.")


class TransformerConfig(BackboneConfig):
    """A causal transformer over a sliding window; its output is ``deter``."""

    about: ClassVar[str] = "{layers}x{width}, {tokens} tokens"

    width: int = Field(256, gt=0, description="Width of tokens and layers, at least 1.")
    layers: int = Field(4, gt=0, description="Number of attention layers, at least 1.")
    heads: int = Field(4, gt=0, description="Attention heads of each layer, at least 1.")
    head: int = Field(64, gt=0, description="Size of each attention head, at least 1.")
    hidden: int = Field(1024, gt=0, description="Hidden width of each layer's MLP, at least 1.")
    window: int = Field(64, gt=1, description="Tokens that a layer sees, at least 2.")
    order: Literal["pre", "post"] = Field(
        "pre", description="Whether layer norms stand before attention and MLP, or after them."
    )
    positions: Literal["none", "sinusoid", "age", "shaw", "xl"] = Field(
        "age", description="Positions: none, sinusoids, a learned bias by age, Shaw's or XL's."
    )
    activation: Literal["relu", "silu", "gelu"] = Field(
        "silu", description="Activation of the MLP in each transformer layer."
    )
    readout: Literal["last", "all"] = Field(
        "last", description="Whether deter is the output of the last layer or of all layers."
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="Share of activations dropped, 0 to 1.")
    tokens: TokenLayout = Field(
        "joint", description="Tokens of a step: latent and action in one, split, or actions alone."
    )
    token_activation: bool = Field(
        False, description="Whether world.activation follows split tokens of latent and reward."
    )
    score_scale: Literal["head", "width"] = Field(
        "head", description="Attention scores are divided by the root of head, or of width."
    )

    @property
    def deter_size(self) -> int:
        return self.width * (self.layers if self.readout == "all" else 1)


class SSMConfig(BackboneConfig):
    """A stack of diagonal state-space layers; its output is ``deter``."""

    about: ClassVar[str] = "{layers}x{deter}"

    deter: int = Field(2048, gt=0, description="Size D of every layer's output, at least 1.")
    state: int = Field(128, gt=0, description="Complex states of each layer, at least 1.")
    layers: int = Field(4, gt=0, description="Number of state-space layers, at least 1.")
    blocks: int = Field(8, gt=0, description="HiPPO blocks of the initial dynamics, at least 1.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Share of activations dropped, 0 to 1.")


# ------------------------------------------------------------------ posterior and priors


class PosteriorConfig(Frozen):
    """The network from embedding (and deter, in an RSSM) to the posterior."""

    layers: int = Field(1, ge=0, description="Hidden layers of q(z | e), at least 0.")
    units: int = Field(256, gt=0, description="Width of the posterior's hidden layers, from 1.")


class NetConfig(Frozen):
    """A prior that is an MLP to a distribution of the same family as the posterior."""

    layers: int = Field(2, gt=0, description="Hidden layers of the prior, at least 1.")
    units: int = Field(256, gt=0, description="Width of the prior's hidden layers, at least 1.")


class MDNConfig(Frozen):
    """A prior that is a mixture of normals for each dimension of a Gaussian latent."""

    mixtures: int = Field(5, gt=0, description="Normals M mixed per dimension, at least 1.")
