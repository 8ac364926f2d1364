"""A chain of links, each looked up and compared by content, as far as it holds."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from editloop.errors import EditLoopError
from editloop.lineage import tracking

Found = TypeVar("Found")


class Gap(Exception):  # noqa: N818 - the field's word
    """A link of the chain that is missing or does not hold; the message begins with its name."""


@dataclass
class Chain:
    """The links that hold, in order from the model to the annotators, and the first that does not."""

    model: str
    links: list[dict[str, Any]] = field(default_factory=list)
    gap: str | None = None

    @property
    def complete(self) -> bool:
        return self.gap is None

    def add(self, name: str, value: str, *, warning: bool = False) -> None:
        """A link that holds; with `warning`, one that somebody should look at all the same."""
        self.links.append({"name": name, "value": value} | ({"warning": True} if warning else {}))

    def summary(self) -> dict[str, Any]:
        """{"complete", "gap", "links": [{"name", "value"}, ...]}; a link may have "warning": true."""
        return {"complete": self.complete, "gap": self.gap, "links": self.links}


def look_up(name: str, look: Callable[[], Found]) -> Found:
    """What `look` finds; whatever keeps it from finding is the gap."""
    from mlflow.exceptions import MlflowException

    try:
        return look()
    except (EditLoopError, MlflowException, OSError, ValueError) as error:
        raise Gap(f"{name}: {error}") from error


def finished_run(name: str, stage: str, output: str, **inputs: str) -> Any:
    """The finished run of a stage that wrote `output` and read `inputs` (sha256 each); else the gap, which tells a run
    that somebody deleted from one that never was."""
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
