"""What the published choices are worth on drawn scenes: heads and losses, passes, orders of the input.

    editloop compare-judges --out runs/comparison

Every model is trained by the reward stage itself, on a dataset of its seed's own (scenes, edits, experts), and measured
on that dataset's held-out tasks against the oracle. Beside pairwise accuracy, which benchmarks show, stands the
correlation of score and oracle within a group of one editor's own edits, which is what online RL feels.
"""

import json
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
from editloop.evaluation.within_group import within_group_correlation
from editloop.models.edit_reward.model import RewardModel
from editloop.models.edit_score.judge import EditScoreJudge
from editloop.models.judge_protocol import Judge
from editloop.scoring.opening import open_judge
from editloop.studies.comparison.orders import ORDERS, order_bases
from editloop.studies.comparison.world import scenes_dataset
from editloop.training.presets import load_preset
from editloop.training.reward_models import train_reward_model

TASKS = 430
"""Drawn for a seed: 300 to learn from, as in the demo, 43 to choose the best state by, 87 held out."""
LEVEL = 0.95

Part = Literal["losses", "passes", "orders"]
MEASURES = ("accuracy", "within_group")


class Variant(NamedTuple):
    """One way to make a judge."""

    name: str
    preset: str
    base: str
    """A shipped name, or one of `made_bases`."""
    changes: tuple[tuple[str, str], ...] = ()
    """Of the preset: (key, value)."""
    passes: int | None = None
    """EditScore: K of Avg@K. Variants that differ in this alone are one trained model."""


SHIPPED = ("editreward-tiny", "tiny-reward")
"""The demo's preset and base."""
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
"""The first of a part is what the others are compared with."""


def compare(output: Path, *, seeds: int, parts: Sequence[Part] = tuple(COMPARED)) -> dict[str, Any]:
    """Train and measure every variant of `parts` on `seeds` seeds; returns what `output`/comparison.json holds.

    {part: {variant: {measure: {"mean", "ci95", "change", "change_ci95", "seeds": [..]}}}}: means over seeds, and the
    paired change from the part's first variant, with 95 % intervals by Student's t over seeds. What was measured before
    is kept, also of parts that are not asked for now.
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
    """Means and paired changes, with intervals over seeds, of {variant: [a seed's measures]}; the first is the base."""
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
    """Mean of values (seeds,), and its 95 % interval by Student's t; None for fewer than two."""
    mean = float(values.mean())
    if len(values) < 2:
        return mean, None
    half = float(student.ppf((1 + LEVEL) / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return mean, [mean - half, mean + half]


def comparison_table(report: dict[str, Any]) -> str:
    """The comparison as a Markdown table."""
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
    """Train and measure what a part does not have yet of a seed."""
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
            print(f"seed {seed}, {variant.name}: " + ", ".join(f"{key} {value:.3f}" for key, value in figures.items()))


def train_variant(variant: Variant, dataset: Path, model: Path, *, bases: Path, seed: int, epochs: int = 0) -> None:
    """Write the model folder of a variant that learnt from a dataset, where it is not there yet.

    bases: where bases that do not ship are made; epochs: 0 takes the preset's.
    """
    if (model / MANIFEST).is_file():
        return
    preset = load_preset(variant.preset).model_copy(update=dict(variant.changes))
    preset_file = model.with_suffix(".yaml")
    preset_file.write_text(yaml.safe_dump(preset.model_dump(mode="json", exclude_unset=True)))
    base = ensure_base(bases, variant.base)
    train_reward_model(dataset, model, preset=str(preset_file), base=base, epochs=epochs, processes=1, seed=seed)


def measure_variant(variant: Variant, dataset: Path, model: Path, *, seed: int) -> dict[str, float]:
    """How a variant's model orders the held-out candidates of a dataset, against the oracle.

    accuracy: share of clear pairs in order; within_group: see `editloop.evaluation.within_group`; pairs: how many are
    clear; missing: how many of these have no answer.
    """
    suite = open_suite("scenes", dataset)
    judge: Judge = (
        open_judge(str(model)) if variant.passes is None else EditScoreJudge.load(model, passes=variant.passes)
    )
    with tempfile.TemporaryDirectory(dir=model.parent, prefix=".answers.") as scratch:
        answers = judge_suite(suite, judge, Path(scratch))
        report = evaluate(suite, answers, seed=seed).report
    correlation = within_group_correlation(answers, read_groups(dataset, "test"))
    return {
        "accuracy": float(report["accuracy"]),
        "within_group": float("nan") if correlation is None else correlation,
        "pairs": float(report["counts"]["units"]),
        "missing": float(report["counts"]["missing"]),
    }


def ensure_base(folder: Path, name: str) -> str:
    """A base by its name; those that do not ship are made in `folder` when they are first asked for."""
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
    """{variant: [a seed's measures]} of the seeds that have all variants of the part."""
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
    """Where a variant's measures of a seed are kept; other settings are another place."""
    preset = load_preset(variant.preset).model_copy(update=dict(variant.changes)).model_dump(mode="json")
    return output / "seeds" / f"{seed}-{sha256_json([variant, preset, TASKS])[:16]}.json"
