"""Attention of a Qwen vision tower: all windows and images of a layer in one call, or one call for each length.

Under sdpa transformers calls attention for each window or image by itself: with Qwen2.5-VL about 25 calls a layer for
an image of 512 pixels. Here a GPU computes a layer in one variable-length call of FlashAttention, which torch ships
(FlashAttention-3 where `torch.nn.attention.activate_flash_attention_impl` has chosen it). Elsewhere segments of equal
length are one batch of scaled-dot-product attention: at most four batches for the windows of images of one size.
"""

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface

ATTENTION_NAME = "vision_segments_flash"
"""Name of this attention in transformers' registry. Only where the name has `flash` does a vision tower hand over all
segments at once, with their bounds."""
HALF_TYPES = (torch.float16, torch.bfloat16)
AMPERE = (8, 0)
"""First compute capability with FlashAttention's kernels."""
LARGEST_HEAD, HEAD_MULTIPLE = 256, 8
"""Head widths that FlashAttention's kernels compute: multiples of 8 up to 256. Qwen's are 72 and 80."""


def segment_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    cu_seq_lens_q: Tensor,
    max_length_q: int,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Compute attention within each segment, with the signature that transformers calls.

    Args:
        module: The attention layer.
        query: (1, heads, L, D).
        key: (1, heads, L, D).
        value: (1, heads, L, D).
        attention_mask: Not used; a token attends to all of its segment.
        cu_seq_lens_q: int32 (segments + 1,): where each segment begins, and L.
        max_length_q: Length of the longest segment.
        scaling: Factor on the logits; None takes D^-0.5.
        **options: Options of transformers' flash attention, which these towers do not use.

    Returns:
        The output, (1, L, heads, D), and no attention weights.
    """
    query, key, value = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    if has_varlen_kernel(query):
        bounds, longest = (cu_seq_lens_q, cu_seq_lens_q), (max_length_q, max_length_q)
        output = varlen_attn(query, key, value, *bounds, *longest, scale=scaling)
        assert isinstance(output, Tensor)
        return output[None], None
    return attend_by_length(query, key, value, cu_seq_lens_q.diff().tolist(), scaling)[None], None


def has_varlen_kernel(query: Tensor) -> bool:
    """Return whether FlashAttention computes such a tensor: in half precision, on an Ampere GPU or a newer one.

    Args:
        query: (L, heads, D).
    """
    width = query.shape[-1]
    return (
        query.is_cuda
        and query.dtype in HALF_TYPES
        and width <= LARGEST_HEAD
        and width % HEAD_MULTIPLE == 0
        and torch.cuda.get_device_capability(query.device) >= AMPERE
        and torch.backends.cuda.is_flash_attention_available()
    )


def attend_by_length(query: Tensor, key: Tensor, value: Tensor, lengths: list[int], scaling: float | None) -> Tensor:
    """Compute attention within each segment, with one batch for each length of segments.

    Args:
        query: (L, heads, D).
        key: (L, heads, D).
        value: (L, heads, D).
        lengths: Lengths of the segments in order; they sum to L.
        scaling: Factor on the logits; None takes D^-0.5.

    Returns:
        The output, (L, heads, D).
    """
    starts: dict[int, list[int]] = defaultdict(list)
    start = 0
    for length in lengths:
        starts[length].append(start)
        start += length

    def batch(tensors: tuple[Tensor, ...], length: int) -> Tensor:
        q, k, v = (tensor.unflatten(0, (-1, length)).transpose(1, 2) for tensor in tensors)
        return functional.scaled_dot_product_attention(q, k, v, scale=scaling).transpose(1, 2).flatten(0, 1)

    if len(starts) == 1:
        return batch((query, key, value), lengths[0])
    indices = [
        (torch.tensor(firsts)[:, None] + torch.arange(length)).flatten().to(query.device)
        for length, firsts in starts.items()
    ]
    outputs = [
        batch((query[index], key[index], value[index]), length) for length, index in zip(starts, indices, strict=True)
    ]
    return torch.cat(outputs)[torch.cat(indices).argsort()]


AttentionInterface.register(ATTENTION_NAME, segment_attention)


def enable_segment_attention(backbone: Any) -> None:
    """Switch the vision tower to this attention, in place. The language model is not changed.

    Args:
        backbone: Qwen2_5_VLModel or Qwen3VLModel.
    """
    # set_attn_implementation would look for a package that has the kernels of this name
    backbone.visual.config._attn_implementation = ATTENTION_NAME
