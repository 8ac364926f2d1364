"""Scores of a judge on a suite. Scores are saved batch by batch, so that a stopped call resumes where it was.

`answers.jsonl` has a line for each scored edit, with the judge's numbers and its own text; `judge.json` names the
judge. An edit that several items share (one pair on three dimensions) is scored once.
"""

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import BufferedRandom
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from editloop.content import sha256_json
from editloop.errors import EditLoopError
from editloop.evaluation.suites.suite import AxisName, Item, Label, PictureRef, Suite, decode_picture
from editloop.models.judge_protocol import EditGroup, Judge, Picture, Score, TaskJudge, takes_references, wording_of
from editloop.scoring.chunks import score_in_chunks
from editloop.scoring.resuming import locked_folder, scoring_progress
from editloop.scoring.validation import validate_scores
from editloop.terminal import text_console

ANSWERS, JUDGE = "answers.jsonl", "judge.json"
EDITS_A_CALL = 64
"""A batch for the judge is complete at this number of edits."""
MEGAPIXELS_A_CALL = 64
"""A batch is also complete at this many millions of decoded pixels, 3 MB each."""
AXES: dict[AxisName, tuple[tuple[str, ...], ...]] = {
    "prompt_following": (("prompt_following",), ("if",)),
    "consistency": (("consistency",),),
    "quality": (("naturalness", "artefacts"), ("vq",)),
    "overall": ((),),
}
"""Judges' own axes that a suite's axis is read from: EditScore's, then EditReward's. Of several the least score counts,
as in EditScore's S_PQ. The overall score is no axis."""
STAND_INS: dict[AxisName, tuple[tuple[str, ...], ...]] = {"consistency": (("vq",),)}
"""What else an axis is read from where a suite does not ask for that very axis: EditReward has no consistency."""
SEVERAL_PICTURES = "several source pictures, or several pictures of an edit"
"""Why an item is left out that a judge of one source and one edit cannot be asked about."""


@dataclass(frozen=True)
class SuiteAnswers:
    """A judge's answers to a suite: either scores of edits or verdicts on comparisons."""

    judge: dict[str, Any]
    """{"name", "version"} of the judge, and its "wording" where one is known; the version is a content address."""
    scores: Mapping[str, NDArray[np.float64]] | None = None
    """By item key: (K,), scores on the item's axis, NaN where missing. None if the answers are verdicts. On the overall
    axis it is the judge's `fused` score, which publications rank by."""
    overall: Mapping[str, NDArray[np.float64]] | None = None
    """The same with the judge's `overall` on the overall axis, such as EditReward's calibrated sum of ratings. None
    where that is the same number."""
    verdicts: Mapping[str, Label | None] | None = None
    """By comparison key. A missing verdict is None or has no entry. None if the answers are scores."""
    reasons: dict[str, int] = field(default_factory=dict)
    """Number of missing answers, by reason."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Why an item was not asked about, by item key. Such items are not missing: they are not measured at all."""


def judge_suite(suite: Suite, judge: Judge, folder: Path) -> SuiteAnswers:
    """Score all edits of a suite.

    An edit that the judge refuses, or gives no finite score, is missing, with the reason. Suites may share a folder: an
    edit that both have is scored once.

    Args:
        suite: The suite, with images.
        judge: The judge.
        folder: Folder in which scores are saved as they come. A stopped call resumes from it.

    Raises:
        EditLoopError: The suite has no images, the judge lacks an axis that the suite asks for, another call is writing
            to the folder, or the folder has answers of another judge or a damaged line.
        JudgeUnavailableError: The judge cannot be reached. Scores so far are kept.

    Examples:
        >>> import editloop
        >>> from pathlib import Path
        >>> suite = editloop.open_suite("genai-bench", Path("genai-bench"))
        >>> judge = editloop.open_judge("tiny-reward", device="cpu")
        >>> answers = editloop.judge_suite(suite, judge, Path("answers"))
        >>> answers.reasons
        {}
    """
    if not suite.has_images:
        raise EditLoopError(f"suite {suite.name}: without its pictures (--data) only saved answers can be measured.")
    axes, left_out = _judge_axes(suite, judge)
    reads_all = takes_references(judge)
    left_out |= {
        item.key: SEVERAL_PICTURES for item in suite.items if item.further or (item.references and not reads_all)
    }
    items = [item for item in suite.items if item.key not in left_out]
    if not items:
        raise EditLoopError(f"suite {suite.name}: all of it is left out ({next(iter(left_out.values()))}).")
    lines_by_edit = judge_items(items, judge, folder, f"{judge.name} is asked {suite.name}")
    reasons = Counter(line["missing"] for line in lines_by_edit.values() if line["missing"])
    fused_scores, overall_scores = (
        {
            item.key: np.array([_axis_score(lines_by_edit[name], axes[item.axis], number) for name in _edit_keys(item)])
            for item in items
        }
        for number in ("fused", "overall")
    )
    differs = any(not np.array_equal(fused_scores[key], overall_scores[key], equal_nan=True) for key in fused_scores)
    described: dict[str, object] = {"name": judge.name, "version": judge.version}
    if wording := wording_of(judge):
        described["wording"] = wording._asdict()
    overall = overall_scores if differs else None
    return SuiteAnswers(described, fused_scores, overall, reasons=dict(reasons.most_common()), left_out=left_out)


def judge_items(items: Sequence[Item], judge: Judge, folder: Path, title: str) -> dict[str, dict[str, Any]]:
    """Score the edits of some items, save each batch, and return the saved lines by `edit_key`.

    Args:
        items: The items, with images. A judge with a question for each type of task is asked that of the item's slice.
        judge: The judge.
        folder: As in `judge_suite`.
        title: What is done, for the progress bar.

    Raises:
        EditLoopError: Another call is writing to the folder, or it has answers of another judge or a damaged line.
        JudgeUnavailableError: The judge cannot be reached. Scores so far are kept.
    """
    facts = {"judge": judge.name, "version": judge.version}
    mismatch = f"{folder} holds answers", "give another folder, or remove it"
    with locked_folder(folder, JUDGE, facts, *mismatch), (folder / ANSWERS).open("a+b") as stream:
        lines_by_edit = _read_answers(stream, folder / ANSWERS)
        edit_keys = {name: None for item in items for name in _edit_keys(item)}
        with scoring_progress(transient=True, console=text_console(stderr=True)) as progress:
            missing = sum(bool(lines_by_edit[name]["missing"]) for name in edit_keys.keys() & lines_by_edit.keys())
            bar = progress.add_task(
                title,
                total=len(edit_keys),
                completed=len(edit_keys.keys() & lines_by_edit.keys()),
                missing=missing,
            )
            for part_judge, part in _parts(items, judge):
                for edits, groups in _batches(part, set(lines_by_edit)):
                    scores = score_in_chunks(part_judge, groups)
                    lines = [_answer_line(*edit, score, judge) for edit, score in zip(edits, scores, strict=True)]
                    stream.write(b"".join(json.dumps(line, ensure_ascii=False).encode() + b"\n" for line in lines))
                    stream.flush()
                    lines_by_edit |= {line["edit"]: line for line in lines}
                    missing += sum(bool(line["missing"]) for line in lines)
                    progress.update(bar, advance=len(lines), missing=missing)
    return {name: lines_by_edit[name] for name in edit_keys}


def _parts(items: Sequence[Item], judge: Judge) -> Iterator[tuple[Judge, Sequence[Item]]]:
    """The items with the judge to ask; by slice, where the judge asks by the type of task."""
    if not isinstance(judge, TaskJudge):
        yield judge, items
        return
    for task in dict.fromkeys(item.slice for item in items):
        yield judge.for_task(task), [item for item in items if item.slice == task]


def _judge_axes(suite: Suite, judge: Judge) -> tuple[dict[AxisName, tuple[str, ...]], dict[str, str]]:
    """The judge's own axes by the suite's, none for the overall score; and why items are left out, by their keys.

    Only a suite of exact axes leaves items out, and not all of them.
    """
    axes: dict[AxisName, tuple[str, ...]] = {}
    faults: dict[AxisName, str] = {}
    for axis in dict.fromkeys(item.axis for item in suite.items):
        sources = AXES[axis] + (() if suite.exact_axes else STAND_INS.get(axis, ()))
        judge_axes = next((names for names in sources if set(names) <= set(judge.axes)), None)
        if judge_axes is None:
            read_from = " or ".join("+".join(names) for names in sources)
            faults[axis] = (
                f"{judge.name} has no axis for {axis}; it scores {', '.join(judge.axes)}, and {axis} is read from "
                f"{read_from}"
            )
        else:
            axes[axis] = judge_axes
    if faults and not (suite.exact_axes and axes):
        raise EditLoopError(f"{next(iter(faults.values()))}.")
    return axes, {item.key: faults[item.axis] for item in suite.items if item.axis in faults}


def _edit_keys(item: Item) -> list[str]:
    """Keys of an item's edits in `answers.jsonl`: content addresses of sources, instruction and edit."""
    return [edit_key(item, edit) for edit in item.edits]


def edit_key(item: Item, edit: PictureRef) -> str:
    """Return the key of an edit's answer: the content address of what a judge is shown.

    Args:
        item: The item.
        edit: One of its edits.
    """
    assert item.source is not None
    references = [picture.sha256 for picture in item.references]
    content = [item.source.sha256, item.instruction, edit.sha256, *([references] if references else [])]
    return sha256_json([*content, "at the source's size"] if item.edits_at_source_size else content)[:32]


def _batches(
    items: Sequence[Item], answered: set[str]
) -> Iterator[tuple[list[tuple[Item, PictureRef]], list[EditGroup]]]:
    """Batches of the edits without a score, with their decoded images. `answered` grows by the edits that are read."""
    edits, groups, pixels = list[tuple[Item, PictureRef]](), list[EditGroup](), 0
    for item in items:
        new = {name: edit for name, edit in zip(_edit_keys(item), item.edits, strict=True) if name not in answered}
        answered |= new.keys()
        for start in range(0, len(new), EDITS_A_CALL):
            part = list(new.values())[start : start + EDITS_A_CALL]
            source, *pictures = (decode_picture(picture) for picture in (item.source, *part) if picture)
            references = [decode_picture(picture) for picture in item.references]
            if item.edits_at_source_size:
                pictures = [_at_size_of(source, picture) for picture in pictures]
            groups.append(EditGroup(item.instruction, source, pictures, item.key, references))
            edits += [(item, edit) for edit in part]
            pixels += sum(picture[..., 0].size for picture in (source, *references, *pictures))
            if len(edits) >= EDITS_A_CALL or pixels >= MEGAPIXELS_A_CALL * 1_000_000:
                yield edits, groups
                edits, groups, pixels = [], [], 0
    if edits:
        yield edits, groups


def _at_size_of(source: Picture, picture: Picture) -> Picture:
    """Return the picture at the source's size, by Pillow's default filter, as EditScore's evaluation shows it."""
    if picture.shape == source.shape:
        return picture
    return np.asarray(Image.fromarray(picture).resize((source.shape[1], source.shape[0])))


def _answer_line(item: Item, edit: PictureRef, raw_score: Score, judge: Judge) -> dict[str, Any]:
    score = validate_scores(raw_score, judge.axes)
    assert item.source is not None
    return {
        "edit": edit_key(item, edit),
        "item": item.key,
        "source_sha256": item.source.sha256,
        "edit_sha256": edit.sha256,
        "axes": {name: [axis.mean, axis.sigma] for name, axis in score.axes.items()},
        "fused": score.fused and score.fused.mean,
        "overall": score.overall,
        "reward": score.reward,
        "missing": score.missing,
        "answers": list(score.answers),
    }


def _axis_score(line: dict[str, Any], axes: tuple[str, ...], number: str) -> float:
    """Return the least score on the judge's axes; without one, for the overall axis, the `number` of that name."""
    if line["missing"]:
        return math.nan
    return min(float(line["axes"][axis][0]) for axis in axes) if axes else float(line[number])


def _read_answers(stream: BufferedRandom, path: Path) -> dict[str, dict[str, Any]]:
    """Saved lines by edit key. An incomplete last line, left by a killed call, is cut off the file."""
    stream.seek(0)
    lines_by_edit, complete_bytes = {}, 0
    for number, raw in enumerate(stream, 1):
        if not raw.endswith(b"\n"):
            break
        try:
            line = json.loads(raw)
            _ = line["fused"]  # which earlier versions did not save
            lines_by_edit[str(line["edit"])] = line
        except (ValueError, KeyError, TypeError):
            raise EditLoopError(f"{path}: line {number} is no answer; remove the folder and ask again.") from None
        complete_bytes += len(raw)
    stream.truncate(complete_bytes)
    return lines_by_edit
