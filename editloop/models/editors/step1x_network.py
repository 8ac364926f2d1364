"""Step1X-Edit's transformer: FLUX's blocks behind a connector that reads the states of Qwen2.5-VL.

Weights have the names of the release in diffusers' layout. The parity fixtures in `tests/parity` hold its outputs.
"""

from collections.abc import Sequence
from typing import Any

import torch
from diffusers.configuration_utils import register_to_config
from diffusers.models.attention_dispatch import dispatch_attention_fn
from diffusers.models.embeddings import Timesteps
from diffusers.models.normalization import AdaLayerNormContinuous
from diffusers.models.transformers.transformer_flux import (
    FluxAttention,
    FluxAttnProcessor,
    FluxPosEmbed,
    FluxSingleTransformerBlock,
    FluxTransformerBlock,
)
from torch import Tensor, nn
from torch.nn import functional

from editloop.models.editors.own_network import OwnNetwork

POOLED_WIDTH = 768
"""Width of the pooled text."""
TIME_SCALE = 1000.0
"""Factor of the time, 0..1, before its sinusoid."""
Rotation = tuple[Tensor, Tensor]
"""Cosines and sines of the positions, each (B or 1, S, head width)."""


class Step1XEditTransformer2DModel(OwnNetwork):
    """Step1X-Edit's transformer. The defaults are the released sizes."""

    _no_split_modules: Any = ("FluxTransformerBlock", "FluxSingleTransformerBlock")
    _repeated_blocks: Any = ("FluxTransformerBlock", "FluxSingleTransformerBlock")

    @register_to_config
    def __init__(
        self,
        patch_size: int = 1,
        in_channels: int = 64,
        out_channels: int | None = None,
        num_layers: int = 19,
        num_single_layers: int = 38,
        attention_head_dim: int = 128,
        num_attention_heads: int = 24,
        joint_attention_dim: int = 4096,
        timestep_in_dim: int = 256,
        vector_in_dim: int = POOLED_WIDTH,
        connector_in_channels: int = 3584,
        connector_hidden_size: int = 4096,
        connector_heads_num: int = 32,
        connector_depth: int = 2,
        guidance_embeds: bool = False,
        axes_dims_rope: Sequence[int] = (16, 56, 56),
        enable_text_token_mapping: bool = False,
    ):
        """Create the network with random weights. The arguments are the keys of the release's `config.json`.

        Args:
            patch_size: Recorded only: latents come packed.
            in_channels: Channels of a packed latent.
            out_channels: Channels of the velocity. None means as many as a packed latent has.
            num_layers: Blocks with streams of text and image.
            num_single_layers: Blocks with one stream.
            attention_head_dim: Width of a head.
            num_attention_heads: Heads.
            joint_attention_dim: Width of the connector's output.
            timestep_in_dim: Numbers of the time's sinusoid.
            vector_in_dim: Width of the pooled text.
            connector_in_channels: Width of the text encoder's states.
            connector_hidden_size: Width of the connector.
            connector_heads_num: Heads of the connector.
            connector_depth: Blocks of the connector.
            guidance_embeds: Recorded only.
            axes_dims_rope: Width of a head that turns with each of the three positions.
            enable_text_token_mapping: Whether quoted characters are also mapped from their input embeddings (v1.2).
        """
        super().__init__()
        width = num_attention_heads * attention_head_dim
        self.time_proj = Timesteps(timestep_in_dim, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.pos_embed = FluxPosEmbed(theta=10000, axes_dim=list(axes_dims_rope))
        self.time_embed = _Embedder(timestep_in_dim, width)
        self.vec_embed = _Embedder(vector_in_dim, width)
        self.context_embedder = nn.Linear(joint_attention_dim, width)
        self.x_embedder = nn.Linear(in_channels, width)
        self.connector = Connector(
            connector_in_channels, connector_hidden_size, connector_heads_num, connector_depth, vector_in_dim
        )
        self.text_token_mapping = (
            nn.Linear(connector_in_channels, joint_attention_dim) if enable_text_token_mapping else None
        )
        sizes = (width, num_attention_heads, attention_head_dim)
        self.transformer_blocks = nn.ModuleList(FluxTransformerBlock(*sizes) for _ in range(num_layers))
        self.single_transformer_blocks = nn.ModuleList(
            FluxSingleTransformerBlock(*sizes) for _ in range(num_single_layers)
        )
        for block in (*self.transformer_blocks, *self.single_transformer_blocks):
            block.attn.set_processor(RowwiseAttention())
        self.norm_out = AdaLayerNormContinuous(width, width, elementwise_affine=False, eps=1e-6)
        self.proj_out = nn.Linear(width, out_channels or in_channels)

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        timestep: Tensor,
        prompt_embeds_mask: Tensor,
        img_ids: Tensor,
        txt_ids: Tensor,
        text_embeddings: Tensor | None = None,
        text_mask: Tensor | None = None,
        attend_padding: bool = True,
        return_dict: bool = False,
    ) -> tuple[Tensor]:
        """Return the velocity, image to noise, of each packed latent, (B, S, C), as the only item of a tuple.

        Args:
            hidden_states: Packed latents of the edit and then of the source, (B, S, C).
            encoder_hidden_states: The text encoder's states, (B, L, connector_in_channels).
            timestep: Noise levels (B,), 0..1.
            prompt_embeds_mask: bool (B, L), False at padding.
            img_ids: Positions of the latents, (S, 3).
            txt_ids: Positions of the text, (B or 1, L, 3).
            text_embeddings: v1.2: the text encoder's input embeddings, (B, L, connector_in_channels).
            text_mask: v1.2: bool (B, L), True at quoted characters.
            attend_padding: Whether the blocks see padded text, as v1.0 and v1.1 were trained.
            return_dict: Not used: the result is always a tuple.
        """
        text, pooled = self.connector(encoder_hidden_states, timestep * TIME_SCALE, prompt_embeds_mask)
        if self.text_token_mapping is not None and text_embeddings is not None and text_mask is not None:
            text = text + self.text_token_mapping(text_embeddings) * text_mask[..., None]
        text, states = self.context_embedder(text), self.x_embedder(hidden_states)
        sinusoid = self.time_proj(timestep * TIME_SCALE).to(states.dtype)
        time = self.time_embed(sinusoid) + self.vec_embed(pooled)
        ids = torch.cat([txt_ids, img_ids.expand(len(txt_ids), -1, -1)], dim=1)
        cosines, sines = self.pos_embed(ids.flatten(0, 1))
        rotation = tuple(part.unflatten(0, ids.shape[:2]) for part in (cosines, sines))
        attention = {}
        if not attend_padding and not prompt_embeds_mask.all():
            mask = functional.pad(prompt_embeds_mask, (0, states.shape[1]), value=True)
            attention = {"attention_mask": mask[:, None, None]}
        for block in (*self.transformer_blocks, *self.single_transformer_blocks):
            text, states = self.run_block(block, states, text, time, rotation, attention)
        return (self.proj_out(self.norm_out(states, time)),)


class RowwiseAttention(FluxAttnProcessor):
    """FLUX's attention with positions that may differ from row to row of a batch, as texts of v1.2 have them."""

    def __call__(  # type: ignore[override]  # diffusers' own returns two tensors too
        self,
        attn: FluxAttention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_rotary_emb: Rotation | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Attend.

        Args:
            attn: The layer.
            hidden_states: The image's stream, or the only one, (B, S, C).
            encoder_hidden_states: The text's stream, (B, L, C), which precedes the image's.
            attention_mask: bool (B, 1, 1, L + S), False at keys that are not seen.
            image_rotary_emb: Cosines and sines of all positions.

        Returns:
            The image's stream and the text's, or the only one.
        """

        def heads(layer: nn.Linear, states: Tensor, norm: nn.Module | None = None) -> Tensor:
            split: Tensor = layer(states).unflatten(-1, (-1, attn.head_dim))
            normed: Tensor = split if norm is None else norm(split)
            return normed

        query, key = heads(attn.to_q, hidden_states, attn.norm_q), heads(attn.to_k, hidden_states, attn.norm_k)
        value, length = heads(attn.to_v, hidden_states), 0
        if encoder_hidden_states is not None:
            length = encoder_hidden_states.shape[1]
            query = torch.cat([heads(attn.add_q_proj, encoder_hidden_states, attn.norm_added_q), query], dim=1)
            key = torch.cat([heads(attn.add_k_proj, encoder_hidden_states, attn.norm_added_k), key], dim=1)
            value = torch.cat([heads(attn.add_v_proj, encoder_hidden_states), value], dim=1)
        if image_rotary_emb is not None:
            query, key = rotate(query, image_rotary_emb), rotate(key, image_rotary_emb)
        states = dispatch_attention_fn(query, key, value, attn_mask=attention_mask, backend=self._attention_backend)
        states = states.flatten(2, 3).to(query.dtype)
        if encoder_hidden_states is None:
            return states
        text, image = states[:, :length], states[:, length:]
        return attn.to_out[1](attn.to_out[0](image)), attn.to_add_out(text)


def rotate(states: Tensor, rotation: Rotation) -> Tensor:
    """Turn neighbouring pairs of numbers of each head by its position.

    Args:
        states: (B, S, heads, head width).
        rotation: Cosines and sines of the positions.
    """
    cosines, sines = (part.unsqueeze(2) for part in rotation)
    even, odd = states.unflatten(-1, (-1, 2)).unbind(-1)
    turned = torch.stack([-odd, even], dim=-1).flatten(-2)
    return (states.float() * cosines + turned.float() * sines).to(states.dtype)


class Connector(nn.Module):
    """From the text encoder's states to the blocks' text and the pooled text."""

    def __init__(self, in_channels: int, hidden_size: int, heads: int, depth: int, pooled_width: int):
        """Create the connector.

        Args:
            in_channels: Width of the text encoder's states.
            hidden_size: Its own width, and that of its output.
            heads: Attention heads.
            depth: Blocks.
            pooled_width: Width of the pooled text.
        """
        super().__init__()
        self.S = _TokenRefiner(in_channels, hidden_size, heads, depth)
        self.global_proj_out = nn.Linear(in_channels, pooled_width)

    def forward(self, states: Tensor, time: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the text (B, L, hidden_size) and the pooled text (B, pooled_width).

        Args:
            states: The text encoder's states, (B, L, in_channels).
            time: Noise levels (B,), 0..1000.
            mask: bool (B, L), False at padding.
        """
        weights = mask[..., None].to(states.dtype)
        mean = (states * weights).sum(1) / weights.sum(1)
        return self.S(states, mean, time, mask), self.global_proj_out(mean)


class _TokenRefiner(nn.Module):
    """Blocks of attention over the text, gated by time and mean text."""

    def __init__(self, in_channels: int, width: int, heads: int, depth: int):
        super().__init__()
        self.input_embedder = nn.Linear(in_channels, width)
        self.t_embedder = nn.ModuleDict(
            {"mlp": nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width))}
        )
        self.c_embedder = nn.ModuleDict(
            {"linear_1": nn.Linear(in_channels, width), "linear_2": nn.Linear(width, width)}
        )
        self.individual_token_refiner = nn.ModuleDict(
            {"blocks": nn.ModuleList(_RefinerBlock(width, heads) for _ in range(depth))}
        )
        self.sinusoid = Timesteps(256, flip_sin_to_cos=True, downscale_freq_shift=0)

    def forward(self, states: Tensor, mean: Tensor, time: Tensor, mask: Tensor) -> Tensor:
        timed = self.t_embedder["mlp"](self.sinusoid(time).to(states.dtype))
        gate = timed + self.c_embedder["linear_2"](functional.silu(self.c_embedder["linear_1"](mean)))
        pairs = mask[:, None, :, None] & mask[:, None, None, :]
        pairs = torch.cat([torch.ones_like(pairs[..., :1]), pairs[..., 1:]], dim=-1)  # so that padding sees something
        states = self.input_embedder(states)
        for block in self.individual_token_refiner["blocks"].children():
            states = block(states, gate, pairs)
        return states


class _RefinerBlock(nn.Module):
    """Attention and feed-forward, each with a gate. No positions."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.self_attn_qkv = nn.Linear(width, 3 * width)
        self.self_attn_proj = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, 4 * width), "fc2": nn.Linear(4 * width, width)})
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(self, states: Tensor, gate: Tensor, pairs: Tensor) -> Tensor:
        attention_gate, mlp_gate = self.adaLN_modulation(gate)[:, None].chunk(2, dim=-1)
        qkv = self.self_attn_qkv(self.norm1(states)).unflatten(-1, (3, self.heads, -1))
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=pairs)
        states = states + attention_gate * self.self_attn_proj(attended.transpose(1, 2).flatten(2))
        widened = functional.silu(self.mlp["fc1"](self.norm2(states)))
        output: Tensor = states + mlp_gate * self.mlp["fc2"](widened)
        return output


class _Embedder(nn.Module):
    """Two linear layers with SiLU between them."""

    def __init__(self, in_channels: int, width: int):
        super().__init__()
        self.in_layer = nn.Linear(in_channels, width)
        self.out_layer = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.out_layer(functional.silu(self.in_layer(x)))
        return output
