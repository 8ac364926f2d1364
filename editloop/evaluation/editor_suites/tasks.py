"""Data model of the benchmarks of editors: sources and instructions by type of task, whatever the files' layout."""

from dataclasses import dataclass
from pathlib import PurePosixPath

from editloop.evaluation.suites.suite import PictureRef


@dataclass(frozen=True)
class EditorTask:
    """A source and an instruction, of which a benchmark wants one edit."""

    key: str
    """Path of the edit below a folder of results, without `.png`, as the benchmark's publication lays it out."""
    task: str
    """Type of task. The publication averages over the types."""
    instruction: str
    source: PictureRef
    language: str = ""
    """Language of the instruction; empty where the benchmark has one."""
    in_intersection: bool = False
    """Whether the task is in the subset that all compared editors answered."""

    @property
    def tables(self) -> tuple[str, ...]:
        """Names of the tables of figures that count the task."""
        name = self.language or "all"
        return (name, f"{name} intersection") if self.in_intersection else (name,)


@dataclass(frozen=True)
class EditorSuite:
    """A benchmark of editors."""

    name: str
    sha256: str
    """Content address of all tasks; sources enter by the hash of their bytes."""
    tasks: tuple[EditorTask, ...]
    edits_at_source_size: bool
    """Whether a judge sees the edits at the size of the source."""


def key_fault(key: str) -> str:
    """Return what is wrong with a key as a path below a folder; empty where nothing is.

    Args:
        key: The key.
    """
    path = PurePosixPath(key)
    is_below = bool(key) and not path.is_absolute() and ".." not in path.parts and "\0" not in key
    return "" if is_below else f"key {key!r} is no path below a folder"
