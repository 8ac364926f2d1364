"""OmniGen2's transformer, of Lumina2's blocks: text, sources and noise in one sequence.

Weights have the names of the release. The parity fixtures in `tests/parity` hold its outputs.
"""

from collections.abc import Sequence
from typing import Any

import torch
from diffusers.configuration_utils import register_to_config
from diffusers.models.embeddings import Timesteps
from diffusers.models.normalization import LuminaLayerNormContinuous
from diffusers.models.transformers.transformer_lumina2 import (
    Lumina2CombinedTimestepCaptionEmbedding,
    Lumina2TransformerBlock,
)
from torch import Tensor, nn

from editloop.models.editors.own_network import OwnNetwork
from editloop.models.editors.settings import Size

MOST_SOURCES = 5
"""Rows of the index embedding: sources that one edit may have."""
ROTARY_BASE = 10000.0
"""Base of the rotary frequencies."""


class OmniGen2Transformer2DModel(OwnNetwork):
    """OmniGen2's transformer. The defaults are the released sizes."""

    _no_split_modules: Any = ("Lumina2TransformerBlock",)
    _repeated_blocks: Any = ("Lumina2TransformerBlock",)

    @register_to_config
    def __init__(
        self,
        patch_size: int = 2,
        in_channels: int = 16,
        out_channels: int | None = None,
        hidden_size: int = 2520,
        num_layers: int = 32,
        num_refiner_layers: int = 2,
        num_attention_heads: int = 21,
        num_kv_heads: int = 7,
        multiple_of: int = 256,
        ffn_dim_multiplier: float | None = None,
        norm_eps: float = 1e-5,
        axes_dim_rope: Sequence[int] = (40, 40, 40),
        axes_lens: Sequence[int] = (10000, 10000, 10000),
        text_feat_dim: int = 2048,
        timestep_scale: float = 1000.0,
    ):
        """Create the network with random weights. The arguments are the keys of the release's `config.json`.

        Args:
            patch_size: Latent pixels of a patch's side.
            in_channels: Channels of the latents.
            out_channels: Channels of the velocity. None means as many as the latents have.
            hidden_size: Width of the sequence.
            num_layers: Blocks over the joint sequence.
            num_refiner_layers: Blocks over text, sources and noise alone, of each kind.
            num_attention_heads: Heads of the queries.
            num_kv_heads: Heads of keys and values.
            multiple_of: The feed-forward width is rounded up to a multiple of it.
            ffn_dim_multiplier: Factor of the feed-forward width.
            norm_eps: Epsilon of the blocks' norms.
            axes_dim_rope: Width of a head that turns with each of the three positions.
            axes_lens: Recorded only: largest positions of the release's table.
            text_feat_dim: Width of the text encoder's states.
            timestep_scale: Factor of the time, 0..1, before its sinusoid.
        """
        super().__init__()

        def blocks(count: int, modulation: bool = True) -> nn.ModuleList:
            return nn.ModuleList(
                Lumina2TransformerBlock(
                    hidden_size,
                    num_attention_heads,
                    num_kv_heads,
                    multiple_of,
                    ffn_dim_multiplier,  # type: ignore[arg-type]  # None is a value of it
                    norm_eps,
                    modulation,
                )
                for _ in range(count)
            )

        channels = patch_size * patch_size * in_channels
        self.x_embedder = nn.Linear(channels, hidden_size)
        self.ref_image_patch_embedder = nn.Linear(channels, hidden_size)
        self.image_index_embedding = nn.Parameter(0.02 * torch.randn(MOST_SOURCES, hidden_size))
        self.time_caption_embed = Lumina2CombinedTimestepCaptionEmbedding(
            hidden_size=hidden_size, cap_feat_dim=text_feat_dim, norm_eps=norm_eps
        )
        self.time_caption_embed.time_proj = Timesteps(
            256,
            flip_sin_to_cos=True,
            downscale_freq_shift=0.0,
            scale=timestep_scale,  # type: ignore[arg-type]  # any factor
        )
        self.noise_refiner = blocks(num_refiner_layers)
        self.ref_image_refiner = blocks(num_refiner_layers)
        self.context_refiner = blocks(num_refiner_layers, modulation=False)
        self.layers = blocks(num_layers)
        self.norm_out = LuminaLayerNormContinuous(
            hidden_size,
            min(hidden_size, 1024),
            elementwise_affine=False,
            eps=1e-6,
            bias=True,
            out_dim=patch_size * patch_size * (out_channels or in_channels),
        )

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        timestep: Tensor,
        grids: Sequence[Size],
        encoder_attention_mask: Tensor | None = None,
        return_dict: bool = False,
    ) -> tuple[Tensor]:
        """Return the velocity from noise to image of each noise patch, (B, S, C), as the only item of a tuple.

        Args:
            hidden_states: Patches of the noise and then of each source, (B, S + S', C), pixels by row, column and
                channel.
            encoder_hidden_states: The text encoder's states, (B, L, text_feat_dim).
            timestep: Times (B,), 0 noise to 1 image.
            grids: Rows and columns of patches of the noise and then of each source.
            encoder_attention_mask: bool (B, L), False at padding on the right. None means no padding.
            return_dict: Not used: the result is always a tuple.
        """
        noise, *sources = hidden_states.split([rows * columns for rows, columns in grids], dim=1)
        time, text = self.time_caption_embed(hidden_states, timestep, encoder_hidden_states)
        batch, length = text.shape[:2]
        lengths = (
            torch.full((batch,), length, device=text.device)
            if encoder_attention_mask is None
            else encoder_attention_mask.sum(1)
        )
        rotation = self._rotation(position_ids(lengths, length, grids))
        places = rotation.split([length, *(part.shape[1] for part in (*sources, noise))], dim=1)
        text = self._through(self.context_refiner, text, encoder_attention_mask, places[0])
        refined = [
            self._through(
                self.ref_image_refiner,
                self.ref_image_patch_embedder(source) + self.image_index_embedding[index],
                None,
                place,
                time,
            )
            for index, (source, place) in enumerate(zip(sources, places[1:-1], strict=True))
        ]
        noise = self._through(self.noise_refiner, self.x_embedder(noise), None, places[-1], time)
        joint = torch.cat([text, *refined, noise], dim=1)
        mask = encoder_attention_mask
        if mask is not None:
            mask = torch.cat([mask, mask.new_ones(batch, joint.shape[1] - length)], dim=1)
        joint = self._through(self.layers, joint, mask, rotation, time)
        return (self.norm_out(joint[:, -noise.shape[1] :], time),)

    def _through(self, blocks: nn.ModuleList, states: Tensor, *inputs: Any) -> Tensor:
        for block in blocks:
            states = self.run_block(block, states, *inputs)
        return states

    def _rotation(self, ids: Tensor) -> Tensor:
        """Return the rotary factors of positions (B, N, 3): complex64 (B, N, half a head)."""
        angles = []
        for axis, width in enumerate(self.config["axes_dim_rope"]):
            exponents = torch.arange(0, width, 2, dtype=torch.float64, device=ids.device) / width
            angles.append(ids[..., axis, None] * ROTARY_BASE**-exponents)
        angle = torch.cat(angles, dim=-1)
        return torch.polar(torch.ones_like(angle), angle).to(torch.complex64)


def position_ids(lengths: Tensor, padded: int, grids: Sequence[Size]) -> Tensor:
    """Return positions on the three rotary axes, (B, padded + patches, 3), of text, sources and noise.

    Text token n is at (n, n, n). A patch is at (start, row, column). The first source starts at the number of text
    tokens; each further source, and at last the noise, starts later by the longer side of the source before it.

    Args:
        lengths: Text tokens of each sample without padding, (B,).
        padded: Text tokens with padding.
        grids: Rows and columns of patches of the noise and then of each source.
    """
    noise, *sources = grids
    batch, device = len(lengths), lengths.device
    ids = [torch.arange(padded, device=device).view(1, -1, 1).expand(batch, -1, 3)]
    start = lengths
    for rows, columns in (*sources, noise):
        cells = torch.cartesian_prod(torch.arange(rows, device=device), torch.arange(columns, device=device))
        first = start.view(-1, 1, 1).expand(-1, len(cells), 1)
        ids.append(torch.cat([first, cells.expand(batch, -1, -1)], dim=-1))
        start = start + max(rows, columns)
    return torch.cat(ids, dim=1)
