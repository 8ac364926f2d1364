"""The editor_eval stage: the base editor against the tuned one on held-out tasks, and the gate."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.progress import track

from annotation.formats.edits_file import EditRow, read_edits
from annotation.formats.picture_file import load_image
from annotation.simulation.oracle import oracle, shrink
from components.candidates.stage import noise_seed
from components.editor_eval.contact_sheet import contact_sheet, evaluation_page
from components.gates.bootstrap import ratio_interval
from components.gates.decision import decide
from infra.content import complete_folder, sha256_json, write_json
from infra.errors import EditLoopError

CHUNK = 64
SHOWN = 12
"""Tasks on the contact sheet: the first of the held-out ones, not the best."""


def editor_eval(
    edits: Path, editor: Path, output: Path, *, base: str = "tiny-editor", samples: int = 1, steps: int = 8,
    margin: float = 0.0, seed: int = 0,
) -> dict[str, float]:  # fmt: skip
    """Edit each held-out task with both editors from the same noise and compare the shares of right edits.

    `edits`: an edits folder whose rows have targets (the oracle needs them); `editor`: the output of editor_rl.
    `output` gets `evaluation.json`, `gate.json`, `contact-sheet.png`, `page.html`. The uplift's interval is a paired
    bootstrap over tasks. Raises EditLoopError when a row has no target.
    """
    from components.editors.kontext import KontextEditor
    from components.editors.sampling import edit

    rows = read_edits(edits)
    without = [row.id for row in rows if row.target is None]
    if without:
        raise EditLoopError(
            f"{edits}: {len(without)} held-out rows have no target, {without[0]!r} first; give each one."
        )
    models = {"base": KontextEditor.load(base), "tuned": KontextEditor.load(editor / "editor")}
    side = models["base"].side
    right: dict[str, list[NDArray[np.float64]]] = {name: [] for name in models}
    quality: dict[str, list[NDArray[np.float64]]] = {name: [] for name in models}
    following: dict[str, list[NDArray[np.float64]]] = {name: [] for name in models}
    shown: dict[str, NDArray[np.uint8]] = {}
    shown_right: dict[str, NDArray[np.bool_]] = {}
    for start in track(range(0, len(rows), CHUNK), description="editor_eval", transient=True):
        part = rows[start : start + CHUNK]
        instructions = [row.instruction for row in part]
        sources = np.stack([shrink(load_image(row.source), side) for row in part])
        targets = np.stack([shrink(load_image(row.target), side) for row in part if row.target])
        for name, model in models.items():
            seen = []
            for number in range(samples):
                seeds = [noise_seed(seed, sha256_json([row.id]), number) for row in part]
                made = edit(model, instructions, sources, seeds=seeds, steps=steps)
                seen.append(oracle(sources, targets, made))
                if start == 0 and number == 0:
                    shown |= {"source": sources[:SHOWN], "wanted": targets[:SHOWN], name: made[:SHOWN]}
                    shown_right[name] = seen[-1].right[:SHOWN]
            right[name].append(np.mean([scores.right for scores in seen], axis=0))
            following[name].append(np.mean([scores.instruction_following for scores in seen], axis=0))
            quality[name].append(np.mean([scores.visual_quality for scores in seen], axis=0))
    share = {name: np.concatenate(parts) for name, parts in right.items()}
    uplift, low, high = ratio_interval(share["tuned"] - share["base"], np.ones(len(rows)), seed=seed)
    kinds = sorted({row.task for row in rows})
    report: dict[str, Any] = {
        "base": float(share["base"].mean()),
        "tuned": float(share["tuned"].mean()),
        "uplift": uplift,
        "ci95": [low, high],
        "tasks": len(rows),
        "axes": {
            name: {
                "if": float(np.concatenate(following[name]).mean()),
                "vq": float(np.concatenate(quality[name]).mean()),
            }
            for name in models
        },
        "by_task": {
            kind: {name: float(share[name][[row.task == kind for row in rows]].mean()) for name in models}
            for kind in kinds
        },
    }
    gate = decide("share of right edits", uplift, low, high, against=f"the base editor {base}", margin=margin)
    with complete_folder(output, {"editor": str(base)}) as out:
        write_json(out / "evaluation.json", report)
        write_json(out / "gate.json", gate)
        contact_sheet([row.instruction for row in rows[:SHOWN]], shown).save(out / "contact-sheet.png")
        write_pictures(out, rows[:SHOWN], shown, shown_right)
        (out / "page.html").write_text(evaluation_page(report, gate, out / "contact-sheet.png"))
    return {name: float(report[name]) for name in ("base", "tuned", "uplift", "tasks")}


def write_pictures(
    out: Path, rows: list[EditRow], shown: dict[str, NDArray[np.uint8]], right: dict[str, NDArray[np.bool_]]
) -> None:
    """`contact-sheet.json` and the pictures it names, for pages that lay them out themselves."""
    (out / "contact-sheet").mkdir()
    edits: list[dict[str, Any]] = []
    for number, row in enumerate(rows):
        line: dict[str, Any] = {"instruction": row.instruction, "task": row.task}
        for column in ("source", "base", "tuned"):
            line[column] = f"contact-sheet/{number}-{column}.png"
            Image.fromarray(shown[column][number]).save(out / line[column])
        edits.append(line | {f"{name}_right": bool(flags[number]) for name, flags in right.items()})
    write_json(out / "contact-sheet.json", {"edits": edits})
