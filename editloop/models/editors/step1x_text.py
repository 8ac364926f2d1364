"""How Step1X-Edit writes an instruction as tokens, and where the tokens of v1.2 lie over the picture."""

from typing import NamedTuple

import torch
from torch import Tensor

from editloop.models.editors.settings import Size

FIRST_QUOTE = 156
"""v1.0 and v1.1: characters of the whole text before this one open no quotation."""
SEEN_CELL = 28
"""v1.2: pixels of the side of what the text encoder takes as one token."""
LATENT_CELL = 16
"""v1.2: pixels of the side of a packed latent."""
LATENT_CENTRE = 11
"""v1.2: pixel of a packed latent that counts as its place, as the release has it."""


class TextPiece(NamedTuple):
    """A part of a text that is tokenised alone."""

    text: str
    quoted: bool
    """Whether it is one character of a quotation."""


def straight_quotations(text: str, start: int = FIRST_QUOTE) -> list[TextPiece]:
    """Split a text at quotations as v1.0 and v1.1 do.

    Typographic double quotes and apostrophes count as straight double quotes. A quotation that is not closed runs to
    the end of the text.

    Args:
        text: The whole text.
        start: Characters before this one open no quotation.

    Returns:
        The pieces. An opening quote ends its piece, a closing one begins the next.
    """
    for quote in "\u201c\u201d'":
        text = text.replace(quote, '"')
    pieces, plain, inside = [], "", False
    for index, character in enumerate(text):
        if character == '"' and index >= start:
            plain += character
            if not inside:
                pieces.append(TextPiece(plain, quoted=False))
                plain = ""
            inside = not inside
        elif inside:
            pieces.append(TextPiece(character, quoted=True))
        else:
            plain += character
    return [*pieces, TextPiece(plain, quoted=False)] if plain else pieces


def paired_quotations(text: str) -> list[TextPiece]:
    """Split an instruction at quotations as v1.2 does: double quotes, straight or typographic, that are closed.

    Args:
        text: The instruction.

    Returns:
        The pieces, the first and the last of them plain. An opening quote ends its piece, a closing one begins the
        next.
    """
    closing = {'"': '"', "\u201c": "\u201d"}
    pieces, plain, index = [], "", 0
    while index < len(text):
        character = text[index]
        plain += character
        end = text.find(closing[character], index + 1) if character in closing else -1
        if end < 0 and character in closing:
            plain += text[index + 1 :]
            break
        if end >= 0:
            pieces += [
                TextPiece(plain, quoted=False),
                *(TextPiece(each, quoted=True) for each in text[index + 1 : end]),
            ]
            plain, index = text[end], end
        index += 1
    return [*pieces, TextPiece(plain, quoted=False)]


def text_positions(temporal: Tensor, is_picture: Tensor, grid: Size, size: Size) -> Tensor:
    """Return positions (L, 3), float32, of the tokens of v1.2: those of the picture lie over the latents they show.

    Args:
        temporal: Positions in time (L,) as the text encoder counts them.
        is_picture: bool (L,), True at the picture's tokens.
        grid: Rows and columns of the picture's tokens.
        size: (height, width) in pixels of the picture as it was given to the text encoder.
    """
    ids = torch.zeros(len(temporal), 3, device=temporal.device)
    ids[:, 0] = temporal - (temporal.max() + 1)
    places = []
    for cells, pixels in zip(grid, size, strict=True):
        centres = SEEN_CELL * torch.arange(cells, dtype=torch.float64) + (SEEN_CELL - 1) / 2
        places.append((centres * (pixels - 1) / (SEEN_CELL * cells - 1) - LATENT_CENTRE) / LATENT_CELL)
    ids[is_picture, 1:] = torch.cartesian_prod(*places).to(ids)
    return ids
