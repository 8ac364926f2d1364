"""What a training asks of its editor, counted: exact on any machine, however busy."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple
from unittest.mock import patch

if TYPE_CHECKING:
    from editloop.models.editors.protocol import Editor


class Call(NamedTuple):
    """A call of one of the editor's methods."""

    rows: int
    """Latents, or tasks, that it was about."""
    with_gradient: bool


class Evaluations(NamedTuple):
    """Latents that went through the network."""

    without_gradient: int
    with_gradient: int
    """Those that are also gone back through."""

    @classmethod
    def of(cls, calls: Sequence[Call]) -> "Evaluations":
        """Those of some calls of `velocity`."""
        counted = [sum(call.rows for call in calls if call.with_gradient == gradient) for gradient in (False, True)]
        return cls(*counted)


@contextmanager
def calls_of(editor: "Editor", method: str) -> Iterator[list[Call]]:
    """The calls of a method of the editor, as they come."""
    import torch

    calls: list[Call] = []
    real = getattr(editor, method)

    def counted(first: Any, *others: Any) -> Any:
        calls.append(Call(len(first), torch.is_grad_enabled()))
        return real(first, *others)

    with patch.object(editor, method, counted):
        yield calls
