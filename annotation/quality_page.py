"""The quality of a campaign as one page."""

from collections.abc import Mapping
from typing import Any


def quality_page(quality: Mapping[str, Any], title: str) -> str:
    """One self-contained HTML page of what `quality` gives; `title` is the campaign's name."""
    raise NotImplementedError
