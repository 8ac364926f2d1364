"""Output for people at a terminal, in which text that people wrote is shown as they wrote it."""

from rich.console import Console


def text_console(*, stderr: bool = False) -> Console:
    """Return a console to which brackets are no markup and `:name:` is no emoji. Styles come with `Text` or `style`.

    Args:
        stderr: Whether it writes to stderr.
    """
    return Console(stderr=stderr, markup=False, emoji=False)
