"""What a judge said of a suite: asked now, or read from a file of scores or verdicts."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.judges.protocol import Judge
from components.suites.suite import Label, Suite


@dataclass(frozen=True)
class Answers:
    """Scores of edits, or verdicts on comparisons; one of the two."""

    judge: dict[str, Any]
    """{"name", "version"}: who answered, by content."""
    scores: Mapping[str, NDArray[np.float64]] | None = None
    """By item, (K,) on the item's axis, NaN where a reply is missing."""
    verdicts: Mapping[str, Label | None] | None = None
    """By comparison; None, or no entry, where a reply is missing."""
    reasons: dict[str, int] = field(default_factory=dict)
    """How often each reason for a missing score came."""


def judge_suite(suite: Suite, judge: Judge, folder: Path) -> Answers:
    """Ask the judge all of a suite. Its answers are kept in `folder` as they come; a stopped call goes on there."""
    raise NotImplementedError


def read_scores(path: Path, suite: Suite) -> Answers:
    """Scores from a file (.csv, .parquet, .jsonl) with columns key, candidate, score; an empty score is missing."""
    raise NotImplementedError


def read_verdicts(path: Path, suite: Suite) -> Answers:
    """Verdicts from JSON lines with key and verdict: left, right, both_bad, tie, or null for a reply that is missing."""
    raise NotImplementedError
