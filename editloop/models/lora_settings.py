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


def check_editor_adapter(adapter: LoraSettings | None, targets: tuple[str, ...]) -> None:
    """Check the adapter of an editor's training.

    Args:
        adapter: The adapter; None trains all weights.
        targets: Endings of the names of the layers that get it.

    Raises:
        ValueError: There are targets without an adapter, or a dropout, which editors' adapters do not have.
    """
    if adapter is None and targets:
        raise ValueError(f"targets {', '.join(targets)} without an adapter: all weights are trained; drop one")
    if adapter is not None and adapter.dropout:
        raise ValueError(f"adapter.dropout {adapter.dropout}: editors' adapters have none; set it to 0")
