"""Shape of an editor, as far as its memory depends on it, and the editors whose shape is known. Imports no torch.

A file of `architectures/` describes one published editor: its network's blocks, its codec and its text encoders. Tests
compare every number with the classes of diffusers and transformers, built on the meta device from the published
configurations, and what a block keeps with what autograd keeps.
"""

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from editloop.settings_file import FrozenModel, find_preset, preset_names, read_settings

ARCHITECTURES = Path(__file__).with_name("architectures")
"""Those that ship."""
LATENT_PIXELS = 16
"""Pixels a side of a packed latent: eight of the codec, and two latents a side are packed into one."""


class Blocks(FrozenModel):
    """A run of equal transformer blocks.

    With two streams, image and text have weights of their own and an MLP after the attention, which sees both (FLUX's
    double blocks). With one stream, all tokens are one sequence and the MLP runs beside the attention (single blocks),
    or after it, each between two RMS norms (Lumina2's).
    """

    count: int = Field(ge=1)
    streams: int = Field(ge=1, le=2)
    inner: int = Field(ge=1)
    """Width of the MLP."""
    gated: bool = False
    """Whether the MLP has two input projections, of which one gates the other."""
    fused: bool = False
    """Whether one matrix gives q, k, v and the MLP's input."""
    norm_inputs: bool = False
    """Whether the norms of q and k also keep their inputs in the passes' type (diffusers' RMSNorm, not torch's)."""
    token_modulation: bool = False
    """Whether each token of the image has scales and gates of its own, as where the source is read at noise level 0."""
    sandwiched: bool = False
    """Whether RMS norms stand before and after attention and MLP, as in Lumina2."""
    key_heads: int = Field(0, ge=0)
    """Heads of keys and values; 0: as many as of queries."""

    @model_validator(mode="after")
    def _of_a_kind(self) -> Self:
        if self.sandwiched and (self.streams, self.fused, self.gated) != (1, False, True):
            raise ValueError("sandwiched: Lumina2's blocks have one stream, a gate, and nothing fused")
        if self.token_modulation and self.streams != 2:
            raise ValueError("token_modulation: only blocks of two streams modulate the image's tokens apart")
        if self.streams == 2 and self.fused:
            raise ValueError("fused with two streams: their q, k and v are layers of their own")
        return self


class Codec(FrozenModel):
    """A variational autoencoder. Elements are numbers in its type that are held at the fullest moment, per pixel."""

    weights: int = Field(ge=1)
    encode: int = Field(ge=1)
    """Elements per pixel while an image is encoded."""
    decode: int = Field(ge=1)
    """Elements per pixel while an image is decoded. In AutoencoderKL: three tensors of the first layers at full
    resolution, twice 128 channels wide, and the copies that a convolution makes into a layout of its own."""


class TextEncoder(FrozenModel):
    """A text encoder, which runs without gradients."""

    weights: int = Field(ge=1)
    elements: int = Field(ge=1)
    """Numbers held per token at the fullest moment."""


class EditorArchitecture(FrozenModel):
    """Shape of an editor."""

    preset: str
    """Its preset in editloop/models/editors/presets."""
    weights: int = Field(ge=1)
    """Weights of its network, the transformer."""
    adapter_ends: int = Field(ge=1)
    """Inputs and outputs of all layers that the preset's `targets` name: the weights of an adapter of rank 1."""
    width: int = Field(ge=1)
    heads: int = Field(ge=1)
    latent: int = Field(ge=1)
    """Channels of a packed latent."""
    text_width: int = Field(ge=1)
    """Width of the encoded instruction."""
    text_tokens: int = Field(ge=1)
    """Tokens of an encoded instruction, with its image where the text encoder sees one, that the plan counts on."""
    passes: int = Field(ge=1)
    """Passes of the network with guidance above 1: one more for each thing that is compared with, as the negative
    instruction. 1 where guidance is embedded or the editor takes none."""
    blocks: tuple[Blocks, ...] = Field(min_length=1)
    codec: Codec
    text_encoders: tuple[TextEncoder, ...] = Field(min_length=1)

    def image_tokens(self, pixels: int) -> int:
        """Return the number of packed latents of an edit of this size, at least 1.

        Args:
            pixels: Pixels of the image, height times width.
        """
        return max(1, pixels // LATENT_PIXELS**2)


def editor_architecture_names() -> list[str]:
    """Return the names of the editors whose shape is known, sorted."""
    return preset_names(ARCHITECTURES)


def read_editor_architecture(name: str) -> EditorArchitecture:
    """Read the shape of an editor.

    Args:
        name: A shipped name, or the path of a YAML file.

    Raises:
        EditLoopError: There is no such editor, or the file is not valid.
    """
    return read_settings(EditorArchitecture, find_preset(name, ARCHITECTURES, "editor"), "editor architecture")
