"""Settings of a low-rank adapter. Imports no torch."""

from pydantic import Field

from editloop.settings_file import FrozenModel


class LoraSettings(FrozenModel):
    """A low-rank adapter (arXiv 2106.09685) on the language model's linear layers; the rest of the backbone is frozen.

    Newly initialised heads are trained in full beside it.
    """

    rank: int = Field(32, ge=1)
    alpha: int = Field(64, ge=1)
    """Scale of the adapter's output: alpha / rank."""
    dropout: float = Field(0.0, ge=0, lt=1)
