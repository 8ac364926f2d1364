"""The benchmark stage: held-out pairwise accuracy of a reward model, and the gate against the champion."""

import math
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from components.benchmark.page import benchmark_page
from components.dataset.labels import TIE
from components.gates.bootstrap import ratio_interval
from components.gates.decision import decide
from components.judges.opening import find_local, open_judge
from components.judges.protocol import Judge
from infra.content import complete_folder, read_manifest, write_json

CLEAR_GAP = 0.1
"""Pairs whose oracle scores differ more than this are clear: an attentive expert would order them so."""

GROUPS_A_CALL = 64
"""Groups that a judge is given at a time: it makes its own batches of them."""

Groups = Sequence[Any]


class Hits(NamedTuple):
    """Per task: pairs ordered as they should be, and pairs asked for, each (tasks,)."""

    right: NDArray[np.float64]
    asked: NDArray[np.float64]


def benchmark(
    dataset: Path, model: Path, output: Path, *, champion: str = "", margin: float = 0.0, seed: int = 0
) -> dict[str, float]:
    """Judge `model` on the test split and decide whether it may replace `champion` (or, without one, its base).

    model: a folder of any reward model. champion: the model to beat; empty for `models:/NAME@champion` of the model's
    own kind. margin: how much worse than the champion, in accuracy, may still pass.

    Accuracy is strict: a tie of the model, or a score that is missing, on a pair that experts (or the oracle) order
    counts as wrong. A base that is no judge yet (a plain vision-language model) is held to be right half the time.
    `output` gets `benchmark.json`, `gate.json`, `page.html`.
    """
    from components.reward.data import read_groups
    from infra.registry import resolve_model

    manifest = read_manifest(model, check=True)
    judge, held_out = open_judge(str(model)), read_groups(dataset, "test")
    champion = champion or f"models:/{judge.name}@champion"
    scores = overall_scores(judge, held_out)
    base = str(manifest["facts"]["base"])
    base_scores = overall_scores(open_judge(base), held_out) if is_judge(base) else None
    labels, base_labels = (hits(values, held_out, label_order) for values in (scores, base_scores))
    clear, base_clear = (hits(values, held_out, oracle_order) for values in (scores, base_scores))
    accuracy_oracle, *oracle_interval = ratio_interval(*clear, seed=seed)
    accuracy_labels, *label_interval = ratio_interval(*labels, seed=seed)
    report: dict[str, Any] = {
        "accuracy_labels": accuracy_labels,
        "accuracy_labels_ci95": label_interval,
        "accuracy_labels_base": ratio_interval(*base_labels)[0],
        "accuracy_oracle": accuracy_oracle,
        "ci95": oracle_interval,
        "accuracy_base": ratio_interval(*base_clear)[0],
        "within_group": within_group(scores, held_out),
        "within_group_base": within_group(base_scores, held_out) if base_scores else math.nan,
        "pairs": int(labels.asked.sum()),
        "clear_pairs": int(clear.asked.sum()),
        "groups": len(held_out),
        "missing": sum(int(np.isnan(values).sum()) for values in scores),
    }
    report = {name: known(value) for name, value in report.items()}
    old_folder = resolve_model(champion)
    if old_folder is not None and read_manifest(old_folder)["sha256"] == manifest["sha256"]:
        gate: dict[str, Any] = {
            "verdict": "promote",
            "reasons": ["this model is the champion already"],
            "against": champion,
        }
    else:
        old = base_labels
        if old_folder:
            old = hits(overall_scores(open_judge(str(old_folder)), held_out), held_out, label_order)
        change = ratio_interval(labels.right - old.right, labels.asked, seed=seed)
        against = champion if old_folder else f"its base {base}, there being no champion"
        gate = decide("accuracy on held-out labels", *change, against=against, margin=margin)
    gate = {name: known(value) for name, value in gate.items()}
    with complete_folder(
        output, {"model_sha256": manifest["sha256"], "dataset_sha256": read_manifest(dataset)["sha256"]}
    ) as out:
        write_json(out / "benchmark.json", report)
        write_json(out / "gate.json", gate)
        (out / "page.html").write_text(benchmark_page(report, gate))
    return {name: float(value) for name, value in report.items() if isinstance(value, int | float)}


def is_judge(base: str) -> bool:
    """Whether a base has learnt to judge, or is a plain vision-language model."""
    return any((find_local(base).folder / name).is_file() for name in ("reward.json", "editscore.json"))


def known(value: Any) -> Any:
    """None for what could not be measured (NaN, an interval of NaN), which JSON and KFP cannot hold; else the value."""
    parts = value if isinstance(value, list) else [value]
    return None if any(isinstance(part, float) and math.isnan(part) for part in parts) else value


def overall_scores(judge: Judge, groups: Groups) -> list[NDArray[np.float64]]:
    """The judge's overall score of each group's candidates: one (K,) array a group, NaN where a score is missing."""
    found = []
    for start in track(range(0, len(groups), GROUPS_A_CALL), description=f"{judge.name} reads the held-out edits"):
        for scores in judge.judge(groups[start : start + GROUPS_A_CALL]):
            found.append(np.array([np.nan if one.overall is None else one.overall for one in scores]))
    return found


def label_order(group: Any) -> NDArray[np.float64]:
    """The experts' overall score of each candidate, (K,): sum of the axes' mean ratings; within TIE = no order."""
    return np.asarray(group.ratings.sum(axis=1), dtype=np.float64)


def oracle_order(group: Any) -> NDArray[np.float64] | None:
    """The oracle's overall score of each candidate in steps that make only clear pairs differ; None if unknown."""
    seen = group.oracle()
    return None if seen is None else seen.mean


def hits(scores: list[NDArray[np.float64]] | None, groups: Groups, order: Any) -> Hits:
    """Pairs that the scores order as `order` does, or half of those asked where there are no scores.

    Oracle pairs must differ by CLEAR_GAP, label pairs by TIE.
    """
    gap = CLEAR_GAP if order is oracle_order else TIE
    right, asked = np.zeros(len(groups)), np.zeros(len(groups))
    for index, group in enumerate(groups):
        truth = order(group)
        if truth is None:
            continue
        for i, j in combinations(range(len(truth)), 2):
            if abs(truth[i] - truth[j]) > gap:
                asked[index] += 1
                right[index] += (
                    0.5 if scores is None else (scores[index][i] - scores[index][j]) * (truth[i] - truth[j]) > 0
                )
    return Hits(right, asked)


def within_group(scores: list[NDArray[np.float64]], groups: Groups) -> float:
    """Mean over groups of the correlation of score and oracle among one editor's own candidates: what RL will feel.

    Only the editor with most candidates is looked at; groups where either does not vary say nothing. NaN without an
    oracle.
    """
    names = [name for group in groups for name in group.editors]
    own = max(sorted(set(names)), key=names.count) if names else ""
    found = []
    for group, values in zip(groups, scores, strict=True):
        truth = oracle_order(group)
        mine = np.array([name == own for name in group.editors]) & ~np.isnan(values)
        if truth is None or mine.sum() < 3 or values[mine].std() < 1e-9 or truth[mine].std() < 0.02:
            continue
        found.append(np.corrcoef(values[mine], truth[mine])[0, 1])
    return float(np.mean(found)) if found else float("nan")
