"""What an editor can take of an instruction: no control token, no more tokens than its network has positions for."""

from collections.abc import Sequence
from typing import Any

from editloop.errors import EditLoopError


def control_token(instruction: str, tokenizer: Any) -> str:
    """Return the first control token that an instruction spells out, which a chat template would obey; empty if none.

    Args:
        instruction: The instruction.
        tokenizer: The tokenizer whose special tokens count, named and unnamed ones, except that for unknown words.
    """
    unnamed = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    control = sorted({*tokenizer.all_special_tokens, *unnamed} - {tokenizer.unk_token})
    return next((token for token in control if token in instruction), "")


class TextLimits:
    """The part of an editor that checks instructions. It needs the tokenizer and no weights."""

    @property
    def text_tokenizer(self) -> Any:
        """The tokenizer by whose control tokens an instruction could steer the text encoder; None where it cannot."""
        return None

    @property
    def longest_text(self) -> int | None:
        """Most tokens of an instruction. None: any number, of which the first ones are read."""
        return None

    def instruction_fault(self, instruction: str) -> str:
        """Return why the editor cannot take an instruction, or an empty text.

        Args:
            instruction: The instruction.
        """
        tokenizer = self.text_tokenizer
        if tokenizer is not None and (token := control_token(instruction, tokenizer)):
            return f"{token} steers the text encoder; write it otherwise"
        if self.longest_text is not None:
            tokens = self.count_tokens(instruction)
            if tokens > self.longest_text:
                return f"{tokens:,} tokens; this editor takes {self.longest_text:,}; shorten it"
        return ""

    def count_tokens(self, instruction: str) -> int:
        """Return the number of tokens that `longest_text` limits.

        Args:
            instruction: The instruction.
        """
        return len(self.text_tokenizer(instruction, add_special_tokens=False, verbose=False).input_ids)

    def checked(self, instructions: Sequence[str]) -> list[str]:
        """Return instructions after checking that the editor can take them.

        Args:
            instructions: The instructions.

        Raises:
            EditLoopError: It cannot take one of them.
        """
        for text in instructions:
            if fault := self.instruction_fault(text):
                raise EditLoopError(f"instruction {text[:60]!r}: {fault}.")
        return list(instructions)
