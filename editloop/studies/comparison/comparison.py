"""Compares published designs of judges on drawn scenes: heads and losses, passes, orders of the input.

    editloop compare-judges --out runs/comparison

Every model is trained as by the reward stage, on its seed's own dataset (scenes, edits, experts), and measured against
the oracle on that dataset's held-out tasks. Two figures are measured: pairwise accuracy, which benchmarks report, and
the correlation of score and oracle within a group of one editor's edits, on which online RL depends.
"""

import json
import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import yaml
from numpy.typing import NDArray
from scipy.stats import t as student

from editloop.content import MANIFEST, sha256_json, write_file, write_json
from editloop.datasets.preference_groups import read_groups
from editloop.evaluation.suites.answers import judge_suite
from editloop.evaluation.suites.evaluation import evaluate
from editloop.evaluation.suites.opening import open_suite
from editloop.evaluation.within_editor import measure_within_editors
from editloop.models.edit_reward.model import RewardModel
from editloop.models.edit_score.judge import EditScoreJudge
from editloop.models.judge_protocol import Judge
from editloop.scoring.opening import open_judge
from editloop.studies.comparison.orders import ORDERS, order_bases
from editloop.studies.comparison.world import scenes_dataset
from editloop.training.presets import load_preset
from editloop.training.reward_models import train_reward_model

log = logging.getLogger(__name__)

TASKS = 430
"""Tasks drawn for a seed: 300 for training, as in the demo, 43 for validation, 87 held out."""
LEVEL = 0.95
"""Coverage of the intervals."""

Part = Literal["losses", "passes", "orders"]
MEASURES = ("accuracy", "within_group")


class Variant(NamedTuple):
    """A way to train a judge."""

    name: str
    preset: str
    base: str
    """Name of a shipped base, or of one that `ensure_base` makes."""
    changes: tuple[tuple[str, str], ...] = ()
    """Changes of the preset, (key, value)."""
    passes: int | None = None
    """EditScore's K of Avg@K; None for EditReward. Variants that differ only in this share one trained model."""


SHIPPED = ("editreward-tiny", "tiny-reward")
"""Preset and base of the demo."""
COMPARED: dict[Part, tuple[Variant, ...]] = {
    "losses": (
        Variant("a head an axis, uncertainty as coded", *SHIPPED),
        Variant("a head an axis, uncertainty as printed", *SHIPPED, (("loss", "log-expected"),)),
        Variant("one shared head, uncertainty as coded", "editreward-tiny", "shared-head"),
        Variant("a head an axis, Bradley-Terry", *SHIPPED, (("loss", "bradley-terry"),)),
        Variant("a head an axis, pointwise regression", *SHIPPED, (("loss", "regression"),)),
    ),
    "passes": (
        Variant("EditScore, one pass", "editscore-tiny", "tiny-score", passes=1),
        Variant("EditScore, Avg@4", "editscore-tiny", "tiny-score", passes=4),
    ),
    "orders": tuple(Variant(f"EditReward, {order}", "editreward-tiny", order) for order in ORDERS),
}
"""Variants by part. The first of a part is the baseline of the others."""


def compare(output: Path, *, seeds: int, parts: Sequence[Part] = tuple(COMPARED)) -> dict[str, Any]:
    """Train and measure every variant on every seed, and write `comparison.json` and `comparison.md`.

    Args:
        output: Folder of the results. Variants that it has already, measured with the same settings, are not repeated.
        seeds: Number of seeds.
        parts: Parts to measure. The report also has the other parts that were measured before.

    Returns:
        The content of `comparison.json`: {part: {variant: {measure: {"mean", "ci95", "change", "change_ci95", "seeds":
        [value by seed]}}}}. `change` is the paired difference from the part's first variant.
    """
    for seed in range(seeds):
        for part in parts:
            _measure(output, part, seed)
    rows_by_part = {str(part): _complete_rows(output, part, seeds) for part in COMPARED}
    report = {part: summarise_variants(rows) for part, rows in rows_by_part.items() if rows}
    write_json(output / "comparison.json", report)
    write_file(output / "comparison.md", comparison_table(report))
    return report


def summarise_variants(rows: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Return means and paired changes over seeds, with 95 % intervals by Student's t.

    Args:
        rows: Measures of each seed, by variant; at least one variant, with the same seeds for all. The first variant is
            the baseline.

    Returns:
        {variant: {measure: {"mean", "ci95", "change", "change_ci95", "seeds": [value by seed]}}}.
    """
    first = next(iter(rows.values()))
    summaries: dict[str, Any] = {}
    for name, seeds in rows.items():
        summaries[name] = {}
        for measure in MEASURES:
            values, base = (
                np.array([seed_row[measure] for seed_row in variant_rows]) for variant_rows in (seeds, first)
            )
            mean, ci95 = student_interval(values)
            change, change_ci95 = student_interval(values - base)
            summaries[name][measure] = {
                "mean": mean,
                "ci95": ci95,
                "change": change,
                "change_ci95": change_ci95,
                "seeds": values.tolist(),
            }
    return summaries


def student_interval(values: NDArray[np.float64]) -> tuple[float, list[float] | None]:
    """Return the mean and its 95 % interval by Student's t.

    Args:
        values: Values, (seeds,), at least one.

    Returns:
        The mean, and [low, high]; None instead of the interval for fewer than two values.
    """
    mean = float(values.mean())
    if len(values) < 2:
        return mean, None
    half = float(student.ppf((1 + LEVEL) / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return mean, [mean - half, mean + half]


def comparison_table(report: dict[str, Any]) -> str:
    """Return the comparison as a Markdown table.

    Args:
        report: The report of `compare`.
    """
    lines = [
        "| judge | clear held-out pairs in order | change | correlation within a group | change |",
        "|---|---|---|---|---|",
    ]
    for part in report.values():
        for index, (name, measures) in enumerate(part.items()):
            cells = []
            for measure in MEASURES:
                estimate = measures[measure]
                cells.append(_format_mean(estimate["mean"], estimate["ci95"], ""))
                cells.append(_format_mean(estimate["change"], estimate["change_ci95"], "+") if index else "")
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _format_mean(mean: float, ci95: list[float] | None, sign: str) -> str:
    figures = f"{mean:{sign}.3f}"
    return figures if ci95 is None else f"{figures} ({ci95[0]:{sign}.3f} to {ci95[1]:{sign}.3f})"


def _measure(output: Path, part: Part, seed: int) -> None:
    """Train and measure the variants of a part that have no measures of a seed yet."""
    waiting = [variant for variant in COMPARED[part] if not _figures_path(output, variant, seed).is_file()]
    if not waiting:
        return
    dataset = output / "worlds" / f"{TASKS}-{seed}"
    if not (dataset / MANIFEST).is_file():
        scenes_dataset(dataset, tasks=TASKS, seed=seed)
    with tempfile.TemporaryDirectory(dir=output, prefix=".models.") as scratch:
        for variant in waiting:
            model = Path(scratch) / sha256_json(variant._replace(name="", passes=None))[:12]
            train_variant(variant, dataset, model, bases=output / "bases", seed=seed)
            figures = measure_variant(variant, dataset, model, seed=seed)
            write_json(_figures_path(output, variant, seed), figures)
            summary = ", ".join(f"{key} {value:.3f}" for key, value in figures.items())
            log.info("seed %d, %s: %s", seed, variant.name, summary)


def train_variant(variant: Variant, dataset: Path, model: Path, *, bases: Path, seed: int, epochs: int = 0) -> None:
    """Train a variant on a dataset, unless the model folder is complete already.

    Args:
        variant: The variant.
        dataset: The dataset folder.
        model: The model folder to write. The changed preset is written beside it.
        bases: Folder for bases that do not ship.
        seed: Seed of the training.
        epochs: Number of epochs; 0: the preset's.
    """
    if (model / MANIFEST).is_file():
        return
    preset = load_preset(variant.preset).model_copy(update=dict(variant.changes))
    preset_file = model.with_suffix(".yaml")
    preset_file.write_text(yaml.safe_dump(preset.model_dump(mode="json", exclude_unset=True)))
    base = ensure_base(bases, variant.base)
    train_reward_model(dataset, model, preset=str(preset_file), base=base, epochs=epochs, processes=1, seed=seed)


def measure_variant(variant: Variant, dataset: Path, model: Path, *, seed: int) -> dict[str, float]:
    """Measure how a variant's model orders a dataset's held-out candidates, against the oracle.

    Args:
        variant: The variant.
        dataset: The dataset folder.
        model: The model folder.
        seed: Seed of the evaluation's resampling.

    Returns:
        accuracy: share of clear pairs in the oracle's order, 0..1. within_group: mean rank correlation with the oracle
        within an editor's edits of a task, see `editloop.evaluation.within_editor`; NaN if it cannot be measured.
        pairs: number of clear pairs. missing: number of these without an answer.
    """
    suite = open_suite("scenes", dataset)
    judge: Judge = (
        open_judge(str(model)) if variant.passes is None else EditScoreJudge.load(model, passes=variant.passes)
    )
    with tempfile.TemporaryDirectory(dir=model.parent, prefix=".answers.") as scratch:
        answers = judge_suite(suite, judge, Path(scratch))
        report = evaluate(suite, answers, seed=seed).report
    groups = read_groups(dataset, "test")
    correlation = measure_within_editors(suite, groups, answers, "oracle", seed=seed).correlation
    return {
        "accuracy": float(report["accuracy"]),
        "within_group": float("nan") if correlation is None else correlation,
        "pairs": float(report["counts"]["units"]),
        "missing": float(report["counts"]["missing"]),
    }


def ensure_base(folder: Path, name: str) -> str:
    """Return the base of a name. Bases that do not ship are made when first needed.

    Args:
        folder: Folder for bases that do not ship.
        name: A name of ORDERS, `shared-head`, or a shipped base.

    Returns:
        Path of the base's folder, or the name of a shipped base.
    """
    if name in ORDERS:
        return str(order_bases(folder)[name])
    if name != "shared-head":
        return name
    path = folder / name
    if not (path / MANIFEST).is_file():
        shipped = RewardModel.load("tiny-reward")
        shared = RewardModel(
            shipped.backbone, shipped.tokenizer, shipped.settings.model_copy(update={"shared_head": True})
        )
        shared.rm_heads["head_0"].load_state_dict(shipped.rm_heads["head_0"].state_dict())
        shared.save(path, {"made_by": "editloop compare-judges"})
    return str(path)


def _complete_rows(output: Path, part: Part, seeds: int) -> dict[str, list[dict[str, float]]]:
    """Measures of each seed, by variant, for the seeds that have all variants of the part."""
    variants = COMPARED[part]
    complete_seeds = [
        seed for seed in range(seeds) if all(_figures_path(output, variant, seed).is_file() for variant in variants)
    ]
    if not complete_seeds:
        return {}
    return {
        variant.name: [json.loads(_figures_path(output, variant, seed).read_text()) for seed in complete_seeds]
        for variant in variants
    }


def _figures_path(output: Path, variant: Variant, seed: int) -> Path:
    """File of a variant's measures of a seed. Its name holds a hash of all settings."""
    preset = load_preset(variant.preset).model_copy(update=dict(variant.changes)).model_dump(mode="json")
    return output / "seeds" / f"{seed}-{sha256_json([variant, preset, TASKS])[:16]}.json"
