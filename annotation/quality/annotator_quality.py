"""Quality figures and flags of every annotator: gold, repeats, bias, speed, drift, reliability weight."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from annotation.quality.annotator_effects import Slope, others_mean
from annotation.quality.annotator_flags import LEVEL, Evidence, Finding, findings, speed
from annotation.quality.annotator_measures import EffectEstimate, annotator_measures, with_time_and_editor
from annotation.quality.known_answers import Share, clustered_share, gold_answers, repeated_answers
from editloop.data.vocabulary import AXES, EditTask, Page
from editloop.statistics.holm import holm
from editloop.statistics.judgement_table import time_parts
from editloop.statistics.reliability import reliability


def annotator_quality(
    table: pd.DataFrame, checks: pd.DataFrame, pages: Sequence[Page], tasks: Sequence[EditTask]
) -> dict[str, dict[str, Any]]:
    """Compute the quality figures and flags of every annotator.

    `shift`, `drift`, `follows` and `editors` compare an annotator with the others, without those who were flagged
    before; a flagged annotator's are those of the round that flagged them. `weight` and `parts` use all annotators.

    Args:
        table: A `judgement_table` of the campaign's own pages.
        checks: A `judgement_table` of repeats and gold.
        pages: The campaign's pages, which hold the known answers.
        tasks: Tasks of the candidates folder, which name the editors; may be empty.

    Returns:
        Figures by annotator, sorted by name. They can be written as JSON; None where the data are not sufficient.
        "flags" holds a text for each flag.
    """
    table = with_time_and_editor(table, tasks)
    evidence, flags = _flag_annotators(table, checks, pages)
    weights = {axis: reliability(table, axis).weights for axis in AXES}
    repeats, parts = repeated_answers(table, checks), _parts(table)
    answers = pd.concat([table, checks])[["annotator", "annotation_id"]].drop_duplicates()["annotator"].astype(str)
    return {
        name: {
            "answers": int((answers == name).sum()),
            "judgements": int((table["annotator"] == name).sum()),
            "gold": _share(case.gold),
            "repeats": _repeats(case.repeats, repeats[repeats["annotator"] == name]),
            "flat": None if case.flat is None else case.flat.value,
            "speed": None
            if case.speed is None
            else {"median_seconds": case.speed.median, "too_fast": case.speed.too_fast / case.speed.pages},
            "weight": {axis: weights[axis].get(name) for axis in AXES},
            "shift": {axis: _estimate(case.axes[axis].shift) for axis in AXES},
            "drift": {axis: _estimate(case.axes[axis].drift) for axis in AXES},
            "follows": {axis: _slope(case.axes[axis].follows) for axis in AXES},
            "position": {
                axis: {"means": case.axes[axis].position.means, "p": float(np.exp(case.axes[axis].position.log_p))}
                for axis in AXES
            },
            "editors": {
                axis: {editor: _estimate(leaning) for editor, leaning in case.axes[axis].editors.items()}
                for axis in AXES
            },
            "parts": parts.get(name, []),
            "flags": flags.get(name, []),
        }
        for name, case in sorted(evidence.items())
    }


def _flag_annotators(
    table: pd.DataFrame, checks: pd.DataFrame, pages: Sequence[Page]
) -> tuple[dict[str, Evidence], dict[str, list[str]]]:
    """Return the evidence of all annotators, and the flags of those who have any.

    Each round flags the annotator with the clearest finding and measures the others again without them.
    """
    gold, repeats = gold_answers(checks, pages), repeated_answers(table, checks)
    repeats = repeats.assign(close=(repeats["difference"] <= 1).astype(float))
    timed = _answered(pd.concat([table, checks], ignore_index=True))
    median = float(timed["seconds"].median()) if len(timed) else 0.0
    settled: dict[str, Evidence] = {}
    flagged: dict[str, list[str]] = {}
    while True:
        active = ~table["annotator"].isin(list(flagged))
        measured = annotator_measures(table[active], checks[~checks["annotator"].isin(list(flagged))])
        evidence = {
            name: Evidence(
                axes,
                _right(gold[gold["annotator"] == name], "right"),
                _right(repeats[repeats["annotator"] == name], "close"),
                _right(timed[timed["annotator"] == name], "flat"),
                speed(timed[timed["annotator"] == name], median),
            )
            for name, axes in measured.items()
        }
        clear = _clear(findings(evidence))
        if not clear:
            return settled | evidence, flagged
        worst = min(clear, key=lambda finding: finding.log_p).annotator
        settled[worst] = evidence[worst]
        flagged[worst] = [finding.words for finding in clear if finding.annotator == worst]


def _clear(tested: Sequence[Finding]) -> list[Finding]:
    if not tested:
        return []
    fallen = holm(np.array([finding.log_p for finding in tested]), LEVEL)
    return [finding for finding, clear in zip(tested, fallen, strict=True) if clear]


def _answered(judgements: pd.DataFrame) -> pd.DataFrame:
    """Return one row per answered page: annotator, annotation_id, seconds, ratings, flat.

    `ratings` is the number of ratings; `flat` is 1 where all ratings of two or more candidates are one level.
    """
    judgements = judgements.assign(low=judgements[list(AXES)].min(axis=1), high=judgements[list(AXES)].max(axis=1))
    by = judgements.astype({"annotator": str}).groupby(["annotator", "annotation_id"])
    flat = (by["low"].min() == by["high"].max()) & (by.size() > 1)
    columns = {"seconds": by["seconds"].first(), "ratings": by.size() * len(AXES), "flat": flat.astype(float)}
    return pd.DataFrame(columns).reset_index()


def _right(rows: pd.DataFrame, column: str) -> Share | None:
    return clustered_share(rows[column].to_numpy(dtype=np.float64), rows["annotation_id"].to_numpy(dtype=np.int64))


def _parts(table: pd.DataFrame) -> dict[str, list[dict[str, Any]]]:
    """Return, by annotator and part of the campaign, the mean difference from the others' ratings, in levels."""
    by_annotator: dict[str, list[dict[str, Any]]] = {}
    apart = {axis: table[axis] - others_mean(table[axis].to_numpy(float), table["item"].to_numpy()) for axis in AXES}
    for part in time_parts(table):
        names = table["annotator"][part.rows].astype(str)
        for name, rows in names.groupby(names).groups.items():
            shift = {axis: _number(apart[axis].loc[rows].mean()) for axis in AXES}
            row = {"begin": part.begin.isoformat(), "end": part.end.isoformat(), "judgements": len(rows)}
            by_annotator.setdefault(str(name), []).append(row | {"shift": shift})
    return by_annotator


def _share(share: Share | None) -> dict[str, Any] | None:
    from scipy.stats import binomtest

    if share is None:
        return None
    right = round(share.value * share.answers)
    ci95 = [float(end) for end in binomtest(right, share.answers).proportion_ci(method="wilson")]
    return {"share": share.value, "ci95": ci95, "answers": share.answers, "pages": share.pages}


def _repeats(close: Share | None, rows: pd.DataFrame) -> dict[str, Any] | None:
    if close is None:
        return None
    exact = float((rows["difference"] == 0).mean())
    return {"exact": exact, "within_one": close.value, "ratings": close.answers, "pages": close.pages}


def _estimate(estimate: EffectEstimate | None) -> dict[str, Any] | None:
    if estimate is None:
        return None
    half = 1.96 * estimate.error
    return {"value": estimate.value, "ci95": [estimate.value - half, estimate.value + half], "pages": estimate.pages}


def _slope(slope: Slope | None) -> Mapping[str, float] | None:
    if slope is None:
        return None
    return {"value": slope.value, "change": slope.change, "residual": slope.residual}


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
