"""What a chat model reads before the first picture of a user's message: its chat template's opening."""

import json
import re
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from editloop.errors import EditLoopError
from editloop.text_file import LARGEST_TEXT, file_bytes

TEXT = "text"
"""Stands for a message's text while the opening is looked for."""
OPENING = re.compile(r"(?:<\|im_start\|>system\n(?P<system>.*)<\|im_end\|>\n)?<\|im_start\|>user\n", re.DOTALL)
"""The opening of Qwen's chat format, with or without a system message."""


def chat_opening(folder: Path, config: Any, tokenizer: PreTrainedTokenizerBase) -> str:
    """Return what a base's chat template puts before two pictures and a text of a user's message.

    A template may begin with a system message of its own, as Qwen2.5-VL's does.

    Args:
        folder: The base's folder. Its template is rendered in a sandbox.
        config: Its configuration.
        tokenizer: Its tokenizer.

    Raises:
        EditLoopError: There is no template, it cannot be rendered, or it puts more than the pictures' own tokens
            between the pictures and the text.
    """
    content: Any = [{"type": "image"}, {"type": "image"}, {"type": "text", "text": TEXT}]
    try:
        message = str(
            tokenizer.apply_chat_template(
                [{"role": "user", "content": content}], chat_template=_template(folder), tokenize=False
            )
        )
    except Exception as error:  # a template is a program of others, and may raise anything
        raise EditLoopError(
            f"{folder}: its chat template cannot be rendered ({type(error).__name__}: "
            f"{' '.join(str(error).split())[:200]}). Take the base's "
            "chat_template.jinja, or give the text before the pictures in the file of the wording."
        ) from None
    ids = (config.vision_start_token_id, config.image_token_id, config.vision_end_token_id)
    picture = "".join(map(str, tokenizer.convert_ids_to_tokens(list(ids))))
    opening, found, _ = message.partition(2 * picture + TEXT)
    if not found:
        raise EditLoopError(
            f"{folder}: its chat template writes two pictures and a text as {message!r}; {2 * picture + TEXT!r} is not "
            "in it. Take the base's own chat_template.jinja, or give the text before the pictures in the file of the "
            "wording."
        )
    return opening


def system_message(folder: Path, config: Any, tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the system message with which a base's chat template begins by itself; empty where it has none.

    Args:
        folder: The base's folder.
        config: Its configuration.
        tokenizer: Its tokenizer.

    Raises:
        EditLoopError: As for `chat_opening`, or the template is not in Qwen's format.
    """
    opening = chat_opening(folder, config, tokenizer)
    match = OPENING.fullmatch(opening)
    if match is None:
        raise EditLoopError(
            f"{folder}: its chat template begins with {opening!r}, which is not Qwen's format. Take the base's own "
            "chat_template.jinja, or give `system` in the file of the wording."
        )
    return match["system"] or ""


def _template(folder: Path) -> str | None:
    """The template in a file of its own; None where the tokenizer has it."""
    for path in (folder / "chat_template.jinja", folder / "chat_template.json"):
        if path.is_file():
            try:
                text = file_bytes(path, LARGEST_TEXT).decode()
                return text if path.suffix == ".jinja" else str(json.loads(text)["chat_template"])
            except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
                raise EditLoopError(f"{path}: no chat template ({error}). Take the one that was published.") from None
    return None
