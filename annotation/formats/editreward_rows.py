"""Export of judgements as the rows that EditReward's trainer reads (`editreward_pairs` has the format)."""

import json
import logging
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from annotation.formats.editreward_pairs import Ratings
from editloop.content import complete_folder, write_file
from editloop.data.vocabulary import Candidate, EditTask, Judgement
from editloop.errors import EditLoopError

log = logging.getLogger(__name__)


def export_rows(judgements: Sequence[Judgement], tasks: Sequence[EditTask], candidates: Path, output: Path) -> int:
    """Export judgements as public rows: `output`/rows.jsonl and its images.

    A row is one annotator's order of two candidates of a task; ties are as in the format's description. Where several
    annotators rated both candidates, `choice_dist` counts how many prefer each, and `confidence` is the share of all
    of them who prefer this row's path1. With one annotator both are null.

    Args:
        judgements: The judgements to export.
        tasks: Tasks of the candidates folder. Judgements of other candidates are left out; a warning counts them.
        candidates: The candidates folder, which holds the images.
        output: Folder to write.

    Returns:
        The number of rows.

    Raises:
        EditLoopError: A judged task is not in `tasks`.
    """
    tasks_by_id = {task.task_id: task for task in tasks}
    ratings: dict[str, dict[str, dict[str, Ratings]]] = {}
    for judgement in judgements:
        by_annotator = ratings.setdefault(judgement.task_id, {}).setdefault(judgement.annotator, {})
        by_annotator[judgement.candidate_id] = (judgement.instruction_following, judgement.visual_quality)
    rows, used, strangers = [], set(), 0
    for key, task_ratings in sorted(ratings.items()):
        if key not in tasks_by_id:
            raise EditLoopError(f"Task {key} is judged, but not in {candidates}: give the folder that was asked about.")
        by_id = {candidate.candidate_id: candidate for candidate in tasks_by_id[key].candidates}
        strangers += sum(len(levels.keys() - by_id.keys()) for levels in task_ratings.values())
        for a, b in combinations(sorted(by_id), 2):
            pair_ratings = {
                who: (levels[a], levels[b])
                for who, levels in sorted(task_ratings.items())
                if a in levels and b in levels
            }
            rows += [
                row for who in pair_ratings for row in _rows(tasks_by_id[key], by_id[a], by_id[b], pair_ratings, who)
            ]
            used |= {tasks_by_id[key].source, by_id[a].image, by_id[b].image} if pair_ratings else set()
    if strangers:
        log.warning("%d judgements left out: %s does not have their candidates", strangers, candidates)
    with complete_folder(output, {"rows": len(rows)}) as folder:
        (folder / "images").mkdir()
        for image in sorted(used):
            (folder / "images" / f"{image}.png").write_bytes((candidates / "images" / f"{image}.png").read_bytes())
        write_file(folder / "rows.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return len(rows)


PairRatings = dict[str, tuple[Ratings, Ratings]]
"""Ratings of two candidates by annotator: ((if, vq) of a, (if, vq) of b)."""


def _rows(task: EditTask, a: Candidate, b: Candidate, pair_ratings: PairRatings, who: str) -> list[dict[str, Any]]:
    """Return one annotator's rows of a pair: one, or two for a tie whose axes disagree."""
    of_a, of_b = pair_ratings[who]
    margin = sum(of_a) - sum(of_b)
    sides = [(a, b, of_a, of_b)] if margin >= 0 else [(b, a, of_b, of_a)]
    if margin == 0 and of_a != of_b:
        sides.append((b, a, of_b, of_a))
    differences = [sum(x) - sum(y) for x, y in pair_ratings.values()]
    votes = [sum(difference > 0 for difference in differences), sum(difference < 0 for difference in differences)]
    rows = []
    for better, worse, high, low in sides:
        side_votes = votes if better is a else votes[::-1]
        several = len(pair_ratings) > 1
        rows.append(
            {
                "prompt": task.instruction,
                "choice_dist": side_votes if several else None,
                "confidence": side_votes[0] / len(pair_ratings) if several else None,
                "path_src": f"images/{task.source}.png",
                "path1": f"images/{better.image}.png",
                "path2": f"images/{worse.image}.png",
                "model1": better.editor,
                "model2": worse.editor,
                "model1_dim1_score": high[0],
                "model1_dim2_score": high[1],
                "model1_overall_score": sum(high),
                "model2_dim1_score": low[0],
                "model2_dim2_score": low[1],
                "model2_overall_score": sum(low),
                "tie_case": margin == 0,
            }
        )
    return rows
