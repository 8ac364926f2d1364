"""The shape of a vision-language backbone, and how many weights that makes. Light: no torch."""

from pydantic import BaseModel, ConfigDict, Field


class Language(BaseModel):
    """Qwen's decoder: grouped-query attention, gated MLP, two norms a layer."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    layers: int = Field(ge=1)
    width: int = Field(ge=1)
    inner: int = Field(ge=1)
    """Width of the gated MLP."""
    heads: int = Field(ge=1)
    key_value_heads: int = Field(ge=1)
    head_width: int = Field(ge=1)
    vocabulary: int = Field(ge=1)
    tied: bool
    """One table for reading and writing words."""
    attention_bias: bool
    """Qwen2.5 adds a bias to q, k and v; Qwen3 norms q and k instead."""

    @property
    def attention(self) -> int:
        """Width of q, and of what goes into the output projection."""
        return self.heads * self.head_width

    @property
    def key_values(self) -> int:
        """Width of k, and of v."""
        return self.key_value_heads * self.head_width

    @property
    def layer_weights(self) -> int:
        linear = self.width * (2 * self.attention + 2 * self.key_values) + 3 * self.width * self.inner
        beside = self.attention + 2 * self.key_values if self.attention_bias else 2 * self.head_width
        return linear + beside + 2 * self.width

    def adapter_weights(self, rank: int) -> int:
        """Of a low-rank adapter on all linear layers."""
        ends = [
            self.width + self.attention,
            self.width + self.key_values,
            self.width + self.key_values,
            self.attention + self.width,
            *3 * [self.width + self.inner],
        ]
        return self.layers * rank * sum(ends)


class Vision(BaseModel):
    """Qwen's vision tower. `gated` (Qwen2.5): a three-matrix MLP and RMS norms; else two matrices and layer norms."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    layers: int = Field(ge=1)
    width: int = Field(ge=1)
    inner: int = Field(ge=1)
    gated: bool
    patch: int = Field(ge=1)
    """Pixels a side of a patch; a language token stands for 2 x 2 of them."""
    deepstack: int = Field(0, ge=0)
    """Layers whose features are merged and added to the language model's first layers (Qwen3-VL)."""
    positions: int = Field(0, ge=0)
    """Learnt position embeddings (Qwen3-VL)."""

    @property
    def layer_weights(self) -> int:
        w, i = self.width, self.inner
        attention = 4 * w * w + 4 * w
        if self.gated:
            return attention + 3 * w * i + 2 * i + w + 2 * w
        return attention + 2 * w * i + i + w + 4 * w

    def weights(self, out: int) -> int:
        """Of the whole tower, which gives tokens of width `out`."""
        merged = 4 * self.width
        merger = merged * merged + merged + merged * out + out
        if self.gated:
            embedding, norm, deep = 3 * 2 * self.patch**2 * self.width, self.width, 0
        else:
            embedding, norm = 3 * 2 * self.patch**2 * self.width + self.width, 2 * self.width
            deep = self.deepstack * (merger + 2 * merged)
        return embedding + self.layers * self.layer_weights + merger + norm + deep + self.positions * self.width

    def patches(self, pixels: int) -> int:
        """Patches of a picture of so many pixels."""
        return max(4, pixels // self.patch**2)


class Architecture(BaseModel):
    """A backbone as `config.json` tells it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    language: Language
    vision: Vision

    @property
    def weights(self) -> int:
        """All parameters but those of the output over the vocabulary."""
        text = self.language
        words = text.vocabulary * text.width
        return words + text.layers * text.layer_weights + text.width + self.vision.weights(text.width)

    @property
    def output_weights(self) -> int:
        """Of the output over the vocabulary, beside `weights`."""
        return 0 if self.language.tied else self.language.vocabulary * self.language.width
