"""Memory of the passes through an editor's network: what autograd keeps, and what a block needs meanwhile.

Counted operation by operation, as in Korthikanti et al. (arXiv 2205.05198, section 4), for the blocks of the MM-DiT
family (arXiv 2403.03206, figure 2): modulated layer norms, normed q and k with rotary positions, attention without
stored scores (arXiv 2205.14135), gated residuals. `size` is the bytes of a number in the passes: 2 where the frozen
weights are bf16 and the adapter fp32, 4 where everything is fp32. Results are bytes. Imports no torch.
"""

from typing import NamedTuple

from editloop.training.editor_architecture import Blocks, EditorArchitecture

FULL = 4
"""Bytes of an fp32 number: norms and rotary positions of q and k are computed in it."""


class EditTokens(NamedTuple):
    """Tokens of one edit in the network."""

    image: int
    """Packed latents of the edit and of its sources."""
    text: int

    @property
    def every(self) -> int:
        """Number of all tokens."""
        return self.image + self.text


def edit_tokens(shape: EditorArchitecture, pixels: int, references: int = 0) -> EditTokens:
    """Count the tokens of an edit.

    What Qwen-Image-Edit's text encoder sees of references is not counted: about 190 tokens each.

    Args:
        shape: The editor's shape.
        pixels: Pixels of the edit, height times width. Its source and its references have as many each.
        references: Reference images of the task.
    """
    return EditTokens((2 + references) * shape.image_tokens(pixels), shape.text_tokens)


def kept_by_mlp(blocks: Blocks, width: int, size: int) -> float:
    """Return the bytes per token that a block's MLP keeps for the backward pass.

    After an attention it keeps the activation's input and output, and with a gate both inputs and the product. Beside
    an attention, its output is joined with the attention's before the output projection, which keeps the whole.
    Lumina2's activation computes in fp32, and no adapter keeps the product.

    Args:
        blocks: The block's shape.
        width: Width of the network.
        size: Bytes per number.
    """
    if blocks.sandwiched:
        return (2 * size + FULL) * blocks.inner
    if blocks.streams == 2:
        return size * (4 if blocks.gated else 2) * blocks.inner
    first = 3 * width + 2 * blocks.inner if blocks.fused else (2 if blocks.gated else 1) * blocks.inner
    activated = blocks.inner if blocks.gated else 0
    return size * (first + activated + width + blocks.inner)


def kept_by_attention(blocks: Blocks, width: int, heads: int, size: int, *, adapter: bool) -> float:
    """Return the bytes per token that norms and attention of a block keep for the backward pass.

    A frozen layer keeps nothing of its input; its adapter does, once for all that read the same. Trained modulations
    and norms keep what they multiply.

    Args:
        blocks: The block's shape.
        width: Width of the network.
        heads: Number of attention heads.
        size: Bytes per number.
        adapter: Whether an adapter is trained, rather than all weights.
    """
    if blocks.sandwiched:
        return _kept_by_sandwich(blocks, width, heads, size, adapter=adapter)
    norms = blocks.streams  # before the attention, and before an MLP that follows it
    attended = 3 if blocks.fused else 4  # q, k, v and the result; a fused v is a part of the projection's output
    projected = 2 if blocks.streams == 2 else 0  # inputs of the output projection and of the MLP
    bytes_kept = size * (norms + 1 + attended + projected) * width
    if size < FULL or not blocks.fused:
        bytes_kept += 2 * FULL * width  # q and k before their norms, in fp32
    if size < FULL and blocks.norm_inputs:
        bytes_kept += 2 * size * width
    if not adapter:
        bytes_kept += size * 2 * norms * width + 2 * FULL * width
    return bytes_kept + FULL * heads  # logarithms of the attention's sums


def _kept_by_sandwich(blocks: Blocks, width: int, heads: int, size: int, *, adapter: bool) -> float:
    """The same of Lumina2's block: four norms that compute in fp32, keys and values repeated for all heads."""
    normed = FULL if size == FULL else FULL + size
    turned = width * (1 + (blocks.key_heads or heads) / heads)
    bytes_kept = normed * (4 * width + turned) + 5 * size * width
    if not adapter:
        bytes_kept += size * (width + blocks.inner) + FULL * (8 * width + turned)
    return bytes_kept + FULL * heads


def kept_by_block(shape: EditorArchitecture, blocks: Blocks, tokens: EditTokens, size: int, *, adapter: bool) -> float:
    """Return the bytes that one block keeps of one edit for the backward pass.

    Args:
        shape: The editor's shape.
        blocks: The block's shape.
        tokens: The edit's tokens.
        size: Bytes per number.
        adapter: Whether an adapter is trained, rather than all weights.
    """
    attention = kept_by_attention(blocks, shape.width, shape.heads, size, adapter=adapter)
    own_modulations = 4 * size * shape.width if blocks.token_modulation else 0  # scale and gate of attention and MLP
    every = tokens.every * (attention + kept_by_mlp(blocks, shape.width, size))
    return every + tokens.image * own_modulations


def gradients_of_block(shape: EditorArchitecture, blocks: Blocks, tokens: EditTokens, size: int) -> float:
    """Return the bytes that the fullest moment of a block's backward pass has beside what the block kept, of one edit.

    Those are gradients of activations, less what has been released by then. It is at the last layer, whose input is the
    widest: its gradient exists once from the frozen layer and once from the adapter.

    Args:
        shape: The editor's shape.
        blocks: The block's shape.
        tokens: The edit's tokens.
        size: Bytes per number.
    """
    if blocks.sandwiched:
        return tokens.every * 2 * size * blocks.inner
    if blocks.streams == 2:  # first through the text's MLP, whose activations are gone at the image's
        at_text, at_image = (2 * size * count * blocks.inner for count in (tokens.text, tokens.image))
        return max(at_text, at_image - tokens.text * kept_by_mlp(blocks, shape.width, size))
    return tokens.every * size * (2 * (shape.width + blocks.inner) + shape.width)


def update_memory(
    shape: EditorArchitecture, tokens: EditTokens, size: int, *, adapter: bool, checkpointing: bool, passes: int = 1
) -> float:
    """Return the bytes of one edit at the fullest moment of a pass forward and backward through the network.

    Args:
        shape: The editor's shape.
        tokens: The edit's tokens.
        size: Bytes per number.
        adapter: Whether an adapter is trained, rather than all weights.
        checkpointing: Whether only the blocks' inputs are kept and the rest is recomputed, a block at a time (Chen et
            al., arXiv 1604.06174).
        passes: Passes forward before the one backward: 2 for guidance that compares two.
    """
    bytes_kept = [kept_by_block(shape, blocks, tokens, size, adapter=adapter) for blocks in shape.blocks]
    gradients = [gradients_of_block(shape, blocks, tokens, size) for blocks in shape.blocks]
    inputs = size * tokens.every * shape.width
    around = 2 * inputs + (FULL + size) * tokens.text * shape.text_width  # embedded tokens, the last norm, the text
    if checkpointing:
        every_input = inputs * sum(blocks.count for blocks in shape.blocks)
        return passes * (around + every_input) + max(map(sum, zip(bytes_kept, gradients, strict=True)))
    every_block = sum(blocks.count * block for blocks, block in zip(shape.blocks, bytes_kept, strict=True))
    return passes * (around + every_block) + gradients[-1]


def working_memory(shape: EditorArchitecture, tokens: EditTokens, size: int) -> float:
    """Return the bytes of one edit at the fullest moment of a pass without gradients.

    It is at a block's widest adapted layer, whose output exists without and with the adapter's.

    Args:
        shape: The editor's shape.
        tokens: The edit's tokens.
        size: Bytes per number.
    """
    return max(_working_memory(blocks, shape.width, tokens, size) for blocks in shape.blocks)


def _working_memory(blocks: Blocks, width: int, tokens: EditTokens, size: int) -> float:
    if blocks.sandwiched:
        return tokens.every * ((3 * size + FULL) * blocks.inner + 7 * size * width)
    first = (3 * width if blocks.fused else 0) + (2 if blocks.gated else 1) * blocks.inner
    if blocks.streams == 2:
        gates = 2 * tokens.image * width if blocks.token_modulation else 0
        return size * (2 * max(tokens.image, tokens.text) * first + 7 * tokens.every * width + gates)
    beside = 6 if blocks.fused else 9  # q, k and v are parts of a fused projection
    return size * tokens.every * (2 * first + beside * width)
