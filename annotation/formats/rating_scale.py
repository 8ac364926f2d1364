"""Scales on which other teams rate, and the rating of 1 to 4 that a value on one becomes."""

import math
import re
from typing import NamedTuple

from editloop.data.table_file import parse_number
from editloop.data.vocabulary import HIGHEST_RATING, LOWEST_RATING
from editloop.errors import EditLoopError

SCALE = re.compile(r"([^.]+(?:\.\d+)?)\.\.([^.]+(?:\.\d+)?)")
DIGITS = 9
"""Decimals at which a level is rounded first, so that 2.5 is a half whatever the scale's step is."""


class RatingScale(NamedTuple):
    """A scale by its ends."""

    worst: float
    best: float
    """Less than `worst` where small numbers are good ones, as with ranks."""

    def __str__(self) -> str:
        """Return the scale as an option states it."""
        return f"{self.worst:g}..{self.best:g}"

    def rating(self, value: float) -> int:
        """Return the rating that a value on the scale becomes, 1..4.

        On 1..4 it is the value, a whole number. Other scales are mapped linearly, worst to 1 and best to 4, and rounded
        to the nearest whole number, a half upwards.

        Args:
            value: A number on the scale.

        Raises:
            ValueError: It is not on the scale. The message is a rule for users.
        """
        if not min(self) <= value <= max(self):
            raise ValueError(f"not on the scale {self}; state the scale on which people rated")
        if self == OUR_SCALE:
            if value != int(value):
                raise ValueError(f"a rating on {self} is a whole number; state the scale on which people rated")
            return int(value)
        share = (value - self.worst) / (self.best - self.worst)
        level = LOWEST_RATING + share * (HIGHEST_RATING - LOWEST_RATING)
        return math.floor(round(level, DIGITS) + 0.5)

    @property
    def rule(self) -> str:
        """The mapping in words, for the origin of a dataset."""
        return f"scale {self}" if self == OUR_SCALE else f"scale {self} mapped linearly onto {OUR_SCALE} and rounded"


OUR_SCALE = RatingScale(LOWEST_RATING, HIGHEST_RATING)


def parse_scale(text: str, name: str) -> RatingScale:
    """Return the scale that an option or a setting states.

    Args:
        text: WORST..BEST, such as 1..5, 0..100 or 5..1.
        name: The option or setting, for the message.

    Raises:
        EditLoopError: It is none.
    """
    try:
        match = SCALE.fullmatch(text.strip())
        scale = RatingScale(parse_number(match[1]), parse_number(match[2])) if match else None
    except ValueError:
        scale = None
    if scale is None or scale.worst == scale.best:
        raise EditLoopError(
            f"{name} {text}: no scale. Write WORST..BEST, two different numbers, such as 1..5 or 0..100."
        )
    return scale
