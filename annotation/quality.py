"""Is a campaign good enough to learn from? Every statistic of its ratings and its annotators, put together."""

from collections.abc import Sequence
from typing import Any

from annotation.vocabulary import CannotJudge, EditTask, Judgement, Page


def quality(
    judgements: Sequence[Judgement],
    checks: Sequence[Judgement],
    cannot: Sequence[CannotJudge],
    pages: Sequence[Page],
    tasks: Sequence[EditTask],
    *,
    seed: int = 0,
) -> dict[str, Any]:
    """All statistics, ready for JSON; a figure that cannot be had is None, with a "note" that says why.

    `judgements` are those of kind `task`, `checks` those on repeats and gold; `pages` know the right answers; `tasks`
    (candidates folder) know types and editors, and may be empty.
    """
    raise NotImplementedError
