"""The one exception that a person is meant to read."""

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches

from editloop.addresses import without_secrets

CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")
"""Control characters other than the end of a line, and those that turn the direction of text around, separate lines, or
show nothing; and halves of surrogate pairs, which no terminal or file takes. Joiners stay: some languages and
pictographs need them."""

LONGEST_LINE, MOST_LINES = 3000, 300
"""Characters of a line of a message, and its lines; the rest is counted. Who lists all names of a hostile file fills a
terminal, a log and MLflow's tags."""


class EditLoopError(Exception):
    """Something a user can mend: the message names the thing, its value, the rule and the next step.

    The command line prints the message alone and exits with 1; any other exception is a defect and keeps its traceback.
    Control characters of a value in the message are shown, not obeyed by the terminal. Secrets in addresses are hidden,
    also where the message quotes another program.
    """

    def __init__(self, message: str):
        """Keep the message with its control characters escaped, apart from ends of lines, and without secrets.

        Args:
            message: One line, or a heading with a line for each fault.
        """
        super().__init__(CONTROL.sub(lambda match: repr(match[0])[1:-1], _bounded(without_secrets(message))))


def _bounded(message: str) -> str:
    lines = message.split("\n")
    shown = [
        line if (more := len(line) - LONGEST_LINE) <= 0 else f"{line[:LONGEST_LINE]}... ({more:,} characters more)"
        for line in lines[:MOST_LINES]
    ]
    return "\n".join([*shown, f"... and {len(lines) - MOST_LINES:,} lines more"] if lines[MOST_LINES:] else shown)


def there_are(name: str, names: Iterable[str]) -> str:
    """Return the end of a message about an unknown name: the names that exist, and the nearest of them.

    Args:
        name: What the user wrote.
        names: The names that exist.
    """
    listed = list(names)
    nearest = get_close_matches(name, listed, n=1)
    return f"there are {', '.join(listed)}." + (f" Did you mean {nearest[0]}?" if nearest else "")


def listed_faults(heading: str, faults: Sequence[str], most: int) -> EditLoopError:
    """Return an error that lists faults below a heading, a line each.

    Args:
        heading: The first line.
        faults: The faults.
        most: How many are listed; the others are counted.
    """
    more = [f"... and {len(faults) - most} more"] if len(faults) > most else []
    return EditLoopError("\n".join([heading, *faults[:most], *more]))
