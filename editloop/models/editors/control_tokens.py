"""Instructions that spell out a control token of a text encoder are refused."""

from collections.abc import Sequence
from typing import Any

from editloop.errors import EditLoopError


def without_control(instructions: Sequence[str], tokenizer: Any) -> list[str]:
    """Return the instructions after checking that none spells out a control token, which a chat template would obey.

    Args:
        instructions: The instructions to check.
        tokenizer: The tokenizer whose special tokens count, named and unnamed ones, except that for unknown words.

    Raises:
        EditLoopError: An instruction contains a control token.
    """
    unnamed = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    control = sorted({*tokenizer.all_special_tokens, *unnamed} - {tokenizer.unk_token})
    for text in instructions:
        for token in control:
            if token in text:
                raise EditLoopError(f"instruction {text[:60]!r}: {token} steers the text encoder; write it otherwise.")
    return list(instructions)
