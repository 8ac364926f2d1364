"""Shape of a vision-language backbone, and the number of its weights. Imports no torch."""

from pydantic import Field

from editloop.settings_file import FrozenModel


class Language(FrozenModel):
    """Qwen's decoder: grouped-query attention, a gated MLP and two norms per layer."""

    layers: int = Field(ge=1)
    width: int = Field(ge=1)
    inner: int = Field(ge=1)
    """Width of the gated MLP."""
    heads: int = Field(ge=1)
    key_value_heads: int = Field(ge=1)
    head_width: int = Field(ge=1)
    vocabulary: int = Field(ge=1)
    tied: bool
    """Whether the input embedding and the output projection share one table."""
    attention_bias: bool
    """Whether q, k and v have a bias, as in Qwen2.5. Without it q and k are normed, as in Qwen3."""

    @property
    def attention(self) -> int:
        """Width of q and of the output projection's input."""
        return self.heads * self.head_width

    @property
    def key_values(self) -> int:
        """Width of k and of v."""
        return self.key_value_heads * self.head_width

    @property
    def layer_weights(self) -> int:
        """Number of weights in one decoder layer."""
        linear = self.width * (2 * self.attention + 2 * self.key_values) + 3 * self.width * self.inner
        beside = self.attention + 2 * self.key_values if self.attention_bias else 2 * self.head_width
        return linear + beside + 2 * self.width

    def adapter_weights(self, rank: int) -> int:
        """Return the number of weights of a low-rank adapter on all linear layers.

        Args:
            rank: Rank of the adapter.
        """
        ends = [
            self.width + self.attention,
            self.width + self.key_values,
            self.width + self.key_values,
            self.attention + self.width,
            *3 * [self.width + self.inner],
        ]
        return self.layers * rank * sum(ends)


class Vision(FrozenModel):
    """Qwen's vision tower.

    Where `gated` is set (Qwen2.5), the MLP has three matrices and norms are RMS norms. Otherwise the MLP has two
    matrices and norms are layer norms.
    """

    layers: int = Field(ge=1)
    width: int = Field(ge=1)
    inner: int = Field(ge=1)
    gated: bool
    patch: int = Field(ge=1)
    """Side of a patch in pixels. One language token stands for 2 x 2 patches."""
    deepstack: int = Field(0, ge=0)
    """Number of layers whose features are merged and added to the language model's first layers (Qwen3-VL)."""
    positions: int = Field(0, ge=0)
    """Number of learnt position embeddings (Qwen3-VL)."""

    @property
    def layer_weights(self) -> int:
        """Number of weights in one layer of the tower."""
        w, i = self.width, self.inner
        attention = 4 * w * w + 4 * w
        if self.gated:
            return attention + 3 * w * i + 2 * i + w + 2 * w
        return attention + 2 * w * i + i + w + 4 * w

    def weights(self, out: int) -> int:
        """Return the number of weights of the whole tower.

        Args:
            out: Width of the tokens that the tower produces.
        """
        merged = 4 * self.width
        merger = merged * merged + merged + merged * out + out
        if self.gated:
            embedding, norm, deep = 3 * 2 * self.patch**2 * self.width, self.width, 0
        else:
            embedding, norm = 3 * 2 * self.patch**2 * self.width + self.width, 2 * self.width
            deep = self.deepstack * (merger + 2 * merged)
        return embedding + self.layers * self.layer_weights + merger + norm + deep + self.positions * self.width

    def patches(self, pixels: int) -> int:
        """Return the number of patches of an image, at least 4.

        Args:
            pixels: Pixels of the image, height times width.
        """
        return max(4, pixels // self.patch**2)


class Architecture(FrozenModel):
    """Shape of a backbone, as its `config.json` states it."""

    language: Language
    vision: Vision

    @property
    def weights(self) -> int:
        """Number of all parameters except the output projection over the vocabulary."""
        text = self.language
        words = text.vocabulary * text.width
        return words + text.layers * text.layer_weights + text.width + self.vision.weights(text.width)

    @property
    def output_weights(self) -> int:
        """Number of parameters of the output projection over the vocabulary, not in `weights`; 0 where tied."""
        return 0 if self.language.tied else self.language.vocabulary * self.language.width
