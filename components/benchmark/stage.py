"""The benchmark stage: held-out pairwise accuracy of a reward model, and the gate against the champion."""

import math
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from components.benchmark.bootstrap import ratio_interval
from components.benchmark.gate import decide
from components.benchmark.page import benchmark_page
from components.dataset.labels import TIE
from infra.content import complete_folder, read_manifest, write_json

CLEAR_GAP = 0.1
"""Pairs whose oracle scores differ more than this are clear: an attentive expert would order them so."""

Groups = list[Any]


class Hits(NamedTuple):
    """Per task: pairs ordered as they should be, and pairs asked for, each (tasks,)."""

    right: NDArray[np.float64]
    asked: NDArray[np.float64]


def benchmark(
    dataset: Path, model: Path, output: Path, *, champion: str = "models:/edit-reward@champion", margin: float = 0.0,
    seed: int = 0,
) -> dict[str, float]:  # fmt: skip
    """Judge `model` on the test split and decide whether it may replace `champion` (or, without one, its base).

    Accuracy is strict: a tie of the model on a pair that experts (or the oracle) order counts as wrong. `output` gets
    `benchmark.json`, `gate.json`, `page.html`. `margin`: how much worse than the champion, in accuracy, may still pass.
    """
    from components.reward.data import read_groups
    from components.reward.model import RewardModel
    from infra.tracking import resolve_model

    manifest = read_manifest(model, check=True)
    base = RewardModel.load(str(manifest["facts"]["base"]))
    held_out = read_groups(dataset, "test", base.settings.side)
    scores = score_groups(RewardModel.load(model), held_out)
    base_scores = score_groups(base, held_out)
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
        "within_group_base": within_group(base_scores, held_out),
        "pairs": int(labels.asked.sum()),
        "clear_pairs": int(clear.asked.sum()),
        "groups": len(held_out),
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
        old = labels_of(old_folder, held_out) if old_folder else base_labels
        change = ratio_interval(labels.right - old.right, labels.asked, seed=seed)
        against = champion if old_folder else f"its base {manifest['facts']['base']}, there being no champion"
        gate = decide("accuracy on held-out labels", *change, against=against, margin=margin)
    gate = {name: known(value) for name, value in gate.items()}
    with complete_folder(
        output, {"model_sha256": manifest["sha256"], "dataset_sha256": read_manifest(dataset)["sha256"]}
    ) as out:
        write_json(out / "benchmark.json", report)
        write_json(out / "gate.json", gate)
        (out / "page.html").write_text(benchmark_page(report, gate))
    return {name: float(value) for name, value in report.items() if isinstance(value, int | float)}


def known(value: Any) -> Any:
    """None for what could not be measured (NaN, an interval of NaN), which JSON and KFP cannot hold; else the value."""
    parts = value if isinstance(value, list) else [value]
    return None if any(isinstance(part, float) and math.isnan(part) for part in parts) else value


def labels_of(folder: Path, groups: Groups) -> Hits:
    """How another model's folder does on the experts' labels of the groups."""
    from components.reward.model import RewardModel

    return hits(score_groups(RewardModel.load(folder), groups), groups, label_order)


def score_groups(model: Any, groups: Groups) -> list[NDArray[np.float64]]:
    """The model's overall score of each group's candidates: one (K,) array a group."""
    from components.reward.train import flat

    if not groups:
        return []
    scores = model.overall(model.score(*flat(groups))).numpy().astype(np.float64)
    return list(np.split(scores, np.cumsum([len(group.candidates) for group in groups])[:-1]))


def label_order(group: Any) -> NDArray[np.float64]:
    """The experts' overall score of each candidate, (K,): sum of the axes' mean ratings; within TIE = no order."""
    return np.asarray(group.ratings.sum(axis=1), dtype=np.float64)


def oracle_order(group: Any) -> NDArray[np.float64] | None:
    """The oracle's overall score of each candidate in steps that make only clear pairs differ; None if unknown."""
    seen = group.oracle()
    return None if seen is None else seen.mean


def hits(scores: list[NDArray[np.float64]], groups: Groups, order: Any) -> Hits:
    """Pairs that the scores order as `order` does. Oracle pairs must differ by CLEAR_GAP, label pairs by TIE."""
    gap = CLEAR_GAP if order is oracle_order else TIE
    right, asked = np.zeros(len(groups)), np.zeros(len(groups))
    for index, (group, values) in enumerate(zip(groups, scores, strict=True)):
        truth = order(group)
        if truth is None:
            continue
        for i, j in combinations(range(len(values)), 2):
            if abs(truth[i] - truth[j]) > gap:
                asked[index] += 1
                right[index] += (values[i] - values[j]) * (truth[i] - truth[j]) > 0
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
        mine = np.array([name == own for name in group.editors])
        if truth is None or mine.sum() < 3 or values[mine].std() < 1e-9 or truth[mine].std() < 0.02:
            continue
        found.append(np.corrcoef(values[mine], truth[mine])[0, 1])
    return float(np.mean(found)) if found else float("nan")
