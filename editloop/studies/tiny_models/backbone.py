"""Tiny configurations of the real backbone classes, for tests, benchmarks and the shipped tiny models."""

from collections.abc import Iterable
from typing import Any, Literal

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2_5_VLConfig, Qwen3VLConfig

Family = Literal["qwen2.5-vl", "qwen3-vl"]

SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
    "<|Reward|>",
)
"""Qwen's special tokens and EditReward's `<|Reward|>`."""


def byte_tokenizer(texts: Iterable[str] = ()) -> PreTrainedTokenizerFast:
    """Build a byte-level tokenizer like Qwen's: it can tokenize any text, a token for each byte, and special tokens.

    Args:
        texts: Texts whose words, each with the blank before it, become single tokens. This keeps rows short.
    """
    split = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = sorted({word for text in texts for word, _ in split.pre_tokenize_str(text)} - set(alphabet))
    vocabulary = {token: token_id for token_id, token in enumerate([*SPECIAL, *alphabet, *words])}
    tokens = Tokenizer(models.BPE(vocab=vocabulary, merges=[], ignore_merges=True))
    tokens.pre_tokenizer = split
    tokens.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokens,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=list(SPECIAL),
    )


def tiny_config(
    family: Family,
    tokenizer: PreTrainedTokenizerFast,
    *,
    width: int = 64,
    layers: int = 2,
    heads: int = 2,
    patch: int = 4,
    vision_layers: int = 2,
    tied: bool = True,
) -> Any:
    """Build a config of the family's class for images of a few dozen pixels.

    The rotary sections fit a head width of 32, so use `width` = 32 * `heads`.

    Args:
        family: The family of models.
        tokenizer: A tokenizer with the tokens of SPECIAL, as `byte_tokenizer` builds.
        width: Hidden size of the text model and the vision tower.
        layers: Layers of the text model.
        heads: Attention heads of each layer.
        patch: Side of a vision patch in pixels.
        vision_layers: Layers of the vision tower.
        tied: Whether an output layer has the weights of the embedding.
    """
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL}
    sections = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6]}
    text: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": width,
        "intermediate_size": 3 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "max_position_embeddings": 32768,
        "rope_parameters": sections,
        "tie_word_embeddings": tied,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
    }
    vision: dict[str, Any] = {
        "depth": vision_layers,
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_heads": heads,
        "out_hidden_size": width,
        "patch_size": patch,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
    }
    names: dict[str, Any] = {
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
        "tie_word_embeddings": tied,
    }
    if family == "qwen2.5-vl":
        vision |= {"window_size": 8 * patch, "fullatt_block_indexes": list(range(vision_layers))}
        return Qwen2_5_VLConfig(text_config=text, vision_config=vision, **names)
    text |= {"head_dim": width // heads}
    text["rope_parameters"] = sections | {"mrope_interleaved": True}
    vision |= {"num_position_embeddings": 64, "deepstack_visual_indexes": list(range(vision_layers))}
    return Qwen3VLConfig(text_config=text, vision_config=vision, **names)
