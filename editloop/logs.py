"""Messages about the progress of long work: programs show them on stderr; a library's user hears nothing unless asked.

Modules log below the logger `editloop`. Results that a user asks for are printed to stdout instead.
"""

import logging
import sys
from typing import Literal, TextIO

from editloop.addresses import without_secrets
from editloop.environment import EnvironmentSettings

LOGGER = "editloop"


class LogSettings(EnvironmentSettings):
    """Which messages a program shows."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Least level of the messages. DEBUG also shows the time, the level and the place of each."""


class _StderrHandler(logging.StreamHandler[TextIO]):
    """Writes to what `sys.stderr` is when a message comes."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


class _SecretFreeFormatter(logging.Formatter):
    """Hides the secrets of addresses, in tracebacks too."""

    def format(self, record: logging.LogRecord) -> str:
        return without_secrets(super().format(record))


def log_to_stderr(*, with_time: bool = False) -> None:
    """Show EditLoop's messages on stderr, one line each. A later call replaces the effect of an earlier one.

    Args:
        with_time: Whether each message begins with its time and level, as a server's should.

    Raises:
        EditLoopError: EDITLOOP_LOG_LEVEL is no level.
    """
    level = LogSettings().log_level
    is_debug = level == "DEBUG"
    has_time = with_time or is_debug
    handler: logging.Handler
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.logging import RichHandler

        handler = RichHandler(
            console=Console(stderr=True), show_time=has_time, show_level=has_time, show_path=is_debug, markup=False
        )
        handler.setFormatter(_SecretFreeFormatter())
    else:
        place = " %(name)s:" if is_debug else ""
        handler = _StderrHandler()
        handler.setFormatter(
            _SecretFreeFormatter(f"%(asctime)s %(levelname)s{place} %(message)s" if has_time else None)
        )
    logger = logging.getLogger(LOGGER)
    logger.handlers = [handler]
    logger.setLevel(level)
