"""A model's chain of evidence: links that are looked up one by one and compared by content, up to the first gap."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from editloop.addresses import without_secrets
from editloop.errors import EditLoopError
from editloop.lineage import tracking
from editloop.lineage.mlflow_errors import translate_error

if TYPE_CHECKING:
    from mlflow.entities import Run

Found = TypeVar("Found")


class Gap(Exception):  # noqa: N818 - the field's word
    """A link that is missing or does not match. The message begins with the link's name."""

    def __init__(self, message: str):
        """Keep the message, without secrets of addresses.

        Args:
            message: What is missing or does not match.
        """
        super().__init__(without_secrets(message))


@dataclass
class Chain:
    """The links that hold, in order from the model to the annotators, and the first gap."""

    model: str
    links: list[dict[str, Any]] = field(default_factory=list)
    gap: str | None = None
    """Message of the first gap; None where there is none."""

    @property
    def complete(self) -> bool:
        """Whether no gap was found."""
        return self.gap is None

    def add(self, name: str, value: str, *, warning: bool = False) -> None:
        """Add a link that holds.

        Args:
            name: Name of the link.
            value: What it points at, as text.
            warning: Whether somebody should look at it although it holds.
        """
        self.links.append({"name": name, "value": value} | ({"warning": True} if warning else {}))

    def summary(self) -> dict[str, Any]:
        """Return {"complete", "gap", "links": [{"name", "value"}, ...]}. A link may also have "warning": true."""
        return {"complete": self.complete, "gap": self.gap, "links": self.links}


def look_up(name: str, look: Callable[[], Found]) -> Found:
    """Call `look` and return its result. Errors of the lookup become a `Gap`.

    Args:
        name: Name of the link, for the gap's message.
        look: Looks the link up.

    Raises:
        Gap: `look` raised EditLoopError, MlflowException, OSError or ValueError.
    """
    from mlflow.exceptions import MlflowException

    try:
        return look()
    except (EditLoopError, MlflowException, OSError, ValueError) as error:
        raise Gap(f"{name}: {translate_error(error) or error}") from error


def finished_run(name: str, stage: str, output: str, **inputs: str) -> "Run":
    """Return the newest finished MLflow run of a stage that wrote an output and read the inputs.

    Args:
        name: Name of the link, for the gap's message.
        stage: The stage of the run.
        output: sha256 of what it wrote.
        **inputs: sha256 of what it read, by the input's name.

    Raises:
        Gap: There is no such run. The message tells a deleted run from one that never existed.
    """
    tags = {"output.output": output}
    runs = tracking.find_runs(tags, stage=stage, finished=True)
    input_tags = {f"editloop.input.{key}": value for key, value in inputs.items()}
    for run in runs:
        if input_tags.items() <= run.data.tags.items():
            return run
    if runs:
        read = ", ".join(f"{key.removeprefix('editloop.input.')} {value}" for key, value in input_tags.items())
        raise Gap(f"{name}: run {runs[0].info.run_id} made {output}, but not of {read}")
    deleted = tracking.find_runs(tags, stage=stage, deleted=True, limit=1)
    if deleted:
        raise Gap(
            f"{name}: {stage} run {deleted[0].info.run_id}, which made {output}, was deleted; restore it in MLflow"
        )
    raise Gap(f"{name}: no finished {stage} run made {output}")
