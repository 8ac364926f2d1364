"""The bar of a long loop, for people at a terminal."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich import progress

from editloop.terminal import text_console

Item = TypeVar("Item")


def track(items: Iterable[Item], description: str, total: int | None = None) -> Iterator[Item]:
    """Yield items, with a bar on stderr that is gone afterwards. Where stderr is no terminal, nothing is printed.

    Args:
        items: The items.
        description: What the bar says.
        total: Number of items, where `items` does not know it.
    """
    console = text_console(stderr=True)
    yield from progress.track(
        items, description, total=total, console=console, transient=True, disable=not console.is_terminal
    )
