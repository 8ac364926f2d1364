"""Token ids of users' text. Such text is always data.

A control token (`<|Reward|>`, `<|image_pad|>`, `<|im_end|>`) that is spelt out in an instruction is read letter by
letter, like any other text. It never becomes the token.
"""

import logging
from functools import lru_cache

from transformers import PreTrainedTokenizerBase

from editloop.errors import EditLoopError

LOG = logging.getLogger(__name__)
SHOWN_CHARACTERS = 40
"""Characters of a text's end that a warning repeats."""


def text_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Return token ids of external text, without special tokens.

    Args:
        tokenizer: The model's tokenizer.
        text: The text, which may spell out control tokens.

    Raises:
        EditLoopError: The tokenizer still turns part of the text into a control token.
    """
    ids: list[int] = tokenizer(
        text, add_special_tokens=False, split_special_tokens=True, truncation=False, verbose=False
    ).input_ids
    control_tokens = control_ids(tokenizer) & set(ids)
    if control_tokens:
        names = ", ".join(sorted(str(tokenizer.convert_ids_to_tokens(token_id)) for token_id in control_tokens))
        raise EditLoopError(
            f"text {text[:60]!r}: this tokenizer reads {names} in it as control tokens; text from outside must stay "
            "data. Use a tokenizer that marks these as special tokens."
        )
    return ids


def control_ids(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Return the ids of the tokens that steer a model: all special tokens except that for unknown words.

    Args:
        tokenizer: The model's tokenizer.
    """
    return set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}


def truncate_text(tokenizer: PreTrainedTokenizerBase, text: str, limit: int) -> str:
    """Return the longest beginning of a text with at most `limit` tokens, cut between characters.

    This is what a model sees of an instruction that is too long. A warning says so, once for each text.

    Args:
        tokenizer: The model's tokenizer.
        text: The text. One that fits is returned unchanged.
        limit: Largest number of tokens.

    Raises:
        EditLoopError: The tokenizer turns part of the text into a control token.
    """
    count = len(text_ids(tokenizer, text))
    if count <= limit:
        return text
    spans = tokenizer(
        text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True, verbose=False
    ).offset_mapping
    beginning = text[: spans[limit][0]]
    _warn_of_cut(text, beginning, count, limit)
    return beginning


@lru_cache(maxsize=1024)
def _warn_of_cut(text: str, beginning: str, count: int, limit: int) -> None:
    LOG.warning(
        "instruction of %d tokens: the model reads %d (instruction_tokens), up to %r. Nothing after that has a part in "
        "the score; shorten the instruction.",
        count,
        limit,
        f"...{beginning[-SHOWN_CHARACTERS:]}",
    )


def control_text_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Return token ids of the project's own text, in which control tokens become tokens.

    Args:
        tokenizer: The model's tokenizer.
        text: The text.
    """
    ids: list[int] = tokenizer(text, add_special_tokens=False, split_special_tokens=False, verbose=False).input_ids
    return ids


def control_id(tokenizer: PreTrainedTokenizerBase, token: str) -> int:
    """Return the id of one control token.

    Args:
        tokenizer: The model's tokenizer.
        token: The token's text, such as `<|im_end|>`.

    Raises:
        EditLoopError: The token is not a special token of this tokenizer.
    """
    token_id = tokenizer.convert_tokens_to_ids(token)
    if not isinstance(token_id, int) or token_id not in control_ids(tokenizer):
        raise EditLoopError(f"tokenizer: {token} is no special token of it; give the tokenizer that the model has.")
    return token_id
