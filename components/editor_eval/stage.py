"""The editor_eval stage: compare the tuned editor with its base on held-out tasks, and decide by the gate."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from components.editor_eval.declaration import EditorEvalParameters
from editloop.content import complete_folder, read_manifest, sha256_json, write_json
from editloop.data.edits_file import EditRow, read_edits
from editloop.data.picture_file import load_image, load_images
from editloop.data.picture_size import resampled
from editloop.errors import EditLoopError
from editloop.evaluation.clusters import clusters_of_rows
from editloop.evaluation.gates.decision import SuiteMeasurement, decide
from editloop.evaluation.gates.page import gate_page
from editloop.evaluation.gates.settings import GateSettings, read_gate
from editloop.evaluation.oracle import oracle
from editloop.evaluation.outcomes import Outcomes
from editloop.evaluation.second_opinion import second_opinions
from editloop.lineage.editor_registration import register_editor
from editloop.models.editors.candidates import noise_seed
from editloop.pages.contact_sheet import COLUMNS, contact_sheet
from editloop.progress import track
from editloop.statistics.bootstrap import ratio_interval, sum_by_cluster
from editloop.work_dir import work_dir

CHUNK = 128
"""Tasks that are edited at a time."""
SHOWN = 12
"""Tasks on the contact sheet: the first held-out tasks, not the best ones."""
REFERENCE_SIDE = 512
"""Pixels. Longest side of a reference image beside them."""
EDITORS = ("base", "tuned")
Pictures = Sequence[NDArray[np.uint8]]
"""One image per task, each (height, width, 3)."""


def run_editor_eval(
    edits: Path,
    editor: Path,
    output: Path,
    parameters: EditorEvalParameters,
    *,
    promotion: Path | None = None,
    pipeline_run: str = "",
) -> dict[str, float]:
    """Edit each held-out task with both editors from the same noise, measure, decide, and register the tuned one.

    Where the gate counts right edits, the oracle compares each edit with its row's target. The judges that the gate
    names see both edits of a task. Both editors are run over the benchmarks that it names.

    Args:
        edits: Edits folder of the held-out tasks.
        editor: Folder that stage editor_sft, editor_dpo or editor_rl wrote.
        output: Folder to write: `evaluation.json`, `gate.json`, `contact-sheet.png`, `page.html`, the contact
            sheet's images with `contact-sheet.json`, and `benchmarks/SUITE` with the result of each benchmark.
        parameters: The stage's parameters.
        promotion: JSON file to write: what the registry did with the editor. None does not register it.
        pipeline_run: Name of the pipeline run that registers the editor.

    Returns:
        The figures of `evaluation.json` that are numbers, and those of `register_editor`.

    Raises:
        EditLoopError: The gate is faulty, a row lacks the target that the gate needs, a judge cannot be opened, the
            editors work at different sizes, or one cannot take a task. Nothing is edited then.
    """
    from editloop.evaluation.editor_benchmark import VersionedEditor, open_benchmarks
    from editloop.evaluation.editor_suites.editing import EditorSampling, editor_version
    from editloop.models.editors.opening import find_editor, open_editor
    from editloop.models.editors.sampling import edit
    from editloop.models.editors.sources import working_references
    from editloop.models.editors.task_check import check_rows

    settings, rows = read_gate(parameters.gate), read_edits(edits)
    without = [row.id for row in rows if row.target is None]
    if settings.right_edits and without:
        raise EditLoopError(
            f"{edits}: {len(without)} held-out rows have no target, {without[0]!r} first, and gate {parameters.gate} "
            "counts right edits; give each row one, or a gate without right_edits that names independent judges."
        )
    reward_sha256 = str(read_manifest(editor)["facts"].get("reward_sha256", ""))  # none where pairs taught it
    opinions = second_opinions(settings.independent, rows, reward_sha256)
    benchmarks = open_benchmarks(settings.benchmarks, reward_sha256)
    models = {"base": open_editor(parameters.base), "tuned": open_editor(editor / "editor")}
    for model in models.values():
        check_rows(model, rows)
    shapes = [load_image(row.source).size for row in rows]
    sizes, tuned_sizes = ([model.size_for(height, width) for width, height in shapes] for model in models.values())
    if sizes != tuned_sizes:
        raise EditLoopError(
            f"{editor}: works at other sizes than the base editor {parameters.base} ({set(tuned_sizes)} against "
            f"{set(sizes)}); give the editor that it was tuned from."
        )
    comparison = _EditorComparison(rows, parameters.samples, bool(settings.right_edits))
    for start in track(range(0, len(rows), CHUNK), description="editor_eval"):
        part, at = rows[start : start + CHUNK], sizes[start : start + CHUNK]
        sources = [resampled(load_image(row.source), size) for row, size in zip(part, at, strict=True)]
        references = [working_references(models["base"], load_images(row.references)) for row in part]
        targets = [resampled(load_image(row.target), size) for row, size in zip(part, at, strict=True) if row.target]
        for number in range(parameters.samples):
            seeds = [noise_seed(parameters.seed, sha256_json([row.id]), number) for row in part]
            instructions = [row.instruction for row in part]
            edited_pictures = {
                name: edit(model, instructions, sources, seeds=seeds, references=references, steps=parameters.steps)
                for name, model in models.items()
            }
            comparison.add(sources, targets, edited_pictures, first=number == 0)
            if number == 0:
                for opinion in opinions:
                    opinion.observe(start, part, sources, edited_pictures["base"], edited_pictures["tuned"])
    report = comparison.report(parameters.seed)
    agreements = [opinion.agreement() for opinion in opinions]
    tuned_sha256 = read_manifest(editor)["sha256"]
    base_sha256 = editor_version(find_editor(parameters.base)) if benchmarks else ""  # reads a folder without manifest
    versions = {"base": base_sha256, "tuned": tuned_sha256}
    names = {"base": parameters.base, "tuned": editor.name}
    editors = {name: VersionedEditor(names[name], versions[name], model) for name, model in models.items()}
    sampling = EditorSampling(steps=parameters.steps, seed=parameters.seed)
    facts = {"editor": parameters.base, "tuned_sha256": tuned_sha256, "reward_sha256": reward_sha256}
    work = work_dir(output) / "benchmarks"
    with complete_folder(output, facts) as out:
        measured = _measured(settings, rows, comparison) + [
            benchmark.measure(editors, work, out / "benchmarks" / benchmark.suite.name, sampling)
            for benchmark in benchmarks
        ]
        decision = decide(
            settings, measured, agreements, against=f"the base editor {parameters.base}", seed=parameters.seed
        )
        write_json(out / "evaluation.json", report)
        write_json(out / "gate.json", decision)
        shown = rows[:SHOWN]
        small = [[load_image(path, REFERENCE_SIDE) for path in row.references] for row in shown]
        sheet = contact_sheet(
            [row.instruction for row in shown],
            comparison.shown,
            references=[[np.asarray(image) for image in images] for images in small],
        )
        sheet.save(out / "contact-sheet.png")
        _write_pictures(out, shown, comparison, small)
        pictures = {"The first held-out tasks": out / "contact-sheet.png"}
        (out / "page.html").write_text(gate_page("Editor evaluation", decision, pictures=pictures))
    figures = {name: float(value) for name, value in report.items() if isinstance(value, int | float)}
    if promotion:
        figures |= register_editor(output, editor, promotion, pipeline_run, name=parameters.name)
    return figures


class _EditorComparison:
    """Scores and sample edits of both editors, collected part by part."""

    def __init__(self, rows: list[EditRow], samples: int, targets: bool):
        self.rows, self.samples, self.targets = rows, samples, targets
        self.scores: dict[str, list[NDArray[np.float64]]] = {name: [] for name in EDITORS}
        """By editor, one array per part of the tasks: (tasks, 3), the means over samples of right (0 or 1), instruction
        following and visual quality."""
        self.shown: dict[str, Pictures] = {}
        self.shown_right: dict[str, NDArray[np.bool_]] = {}

    def add(
        self, sources: Pictures, targets: Pictures, edits_by_editor: Mapping[str, Pictures], *, first: bool
    ) -> None:
        """Add one sample of each task of a part, by each editor. `first` marks the part's first sample."""
        on_sheet = first and not self.shown
        if on_sheet:
            columns = {"source": sources, **edits_by_editor} | ({"wanted": targets} if self.targets else {})
            self.shown = {name: pictures[:SHOWN] for name, pictures in columns.items()}
        if not self.targets:
            return
        for name, pictures in edits_by_editor.items():
            opinions = [oracle(*triple) for triple in zip(sources, targets, pictures, strict=True)]
            axis_scores = np.array(
                [(opinion.right, opinion.instruction_following, opinion.visual_quality) for opinion in opinions], float
            )
            if first:
                self.scores[name].append(axis_scores / self.samples)
            else:
                self.scores[name][-1] += axis_scores / self.samples
            if on_sheet:
                self.shown_right[name] = axis_scores[:SHOWN, 0] > 0

    def right(self, name: str) -> NDArray[np.float64]:
        """Return the share of right edits of each task, (tasks,), 0..1."""
        return np.concatenate(self.scores[name])[:, 0]

    def report(self, seed: int) -> dict[str, Any]:
        """Return the content of evaluation.json: shares of right edits, or without targets only the number of tasks."""
        if not self.targets:
            return {"tasks": len(self.rows)}
        scores = {name: np.concatenate(parts) for name, parts in self.scores.items()}
        change = (scores["tuned"] - scores["base"])[:, :1]
        by_source = sum_by_cluster(change, np.ones_like(change), clusters_of_rows(self.rows))
        uplift, low, high = ratio_interval(*(totals[:, 0] for totals in by_source), seed=seed)
        return {
            "base": float(scores["base"][:, 0].mean()),
            "tuned": float(scores["tuned"][:, 0].mean()),
            "uplift": uplift,
            "ci95": None if np.isnan(low) else [low, high],
            "tasks": len(self.rows),
            "axes": {
                name: {"if": float(task_scores[:, 1].mean()), "vq": float(task_scores[:, 2].mean())}
                for name, task_scores in scores.items()
            },
            "by_task": {
                kind: {name: float(scores[name][[row.task == kind for row in self.rows], 0].mean()) for name in EDITORS}
                for kind in sorted({row.task for row in self.rows})
            },
        }


def _measured(settings: GateSettings, rows: list[EditRow], comparison: _EditorComparison) -> list[SuiteMeasurement]:
    """Return the right edits as the gate's suite; empty where the gate does not count them."""
    if not settings.right_edits:
        return []
    keys, kinds = tuple(row.id for row in rows), tuple(row.task for row in rows)
    none_missing = np.zeros(len(rows), dtype=bool)
    base, tuned = (
        Outcomes("right edits", keys, clusters_of_rows(rows), kinds, comparison.right(name), none_missing)
        for name in EDITORS
    )
    return [SuiteMeasurement(settings.right_edits, tuned, base)]


def _write_pictures(
    out: Path, rows: list[EditRow], comparison: _EditorComparison, references: Sequence[Sequence[Image.Image]]
) -> None:
    """Write `contact-sheet.json` and its images, for pages with a layout of their own."""
    (out / "contact-sheet").mkdir()
    edits: list[dict[str, Any]] = []
    for number, row in enumerate(rows):
        line: dict[str, Any] = {"instruction": row.instruction, "task": row.task}
        for column in COLUMNS[:3]:
            line[column] = f"contact-sheet/{number}-{column}.png"
            Image.fromarray(comparison.shown[column][number]).save(out / line[column])
        names = [f"contact-sheet/{number}-image-{place + 2}.png" for place in range(len(row.references))]
        for name, image in zip(names, references[number], strict=True):
            image.save(out / name)
        line |= {"references": names} if names else {}
        edits.append(line | {f"{name}_right": bool(flags[number]) for name, flags in comparison.shown_right.items()})
    write_json(out / "contact-sheet.json", {"edits": edits})
