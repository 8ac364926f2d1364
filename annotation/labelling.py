"""What an annotator sees in Label Studio, and how what they say is read back.

The source and K candidates stand side by side at one size below the instruction. Each candidate has two controls of
its own, one an axis. A task's data holds candidate ids and `data:` addresses: nothing of it tells the editor.
"""

import base64
import io
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

from PIL import Image

from annotation.vocabulary import AXES, AXIS_NAMES, HIGHEST_RATING, LOWEST_RATING, Axis, Candidate, EditTask
from infra.content import sha256_bytes, sha256_json
from infra.errors import EditLoopError

FEWEST, MOST = 2, 7
"""Candidates on a page: fewer compare nothing, more do not fit a screen or a keyboard."""
KEYS = ("1234", "qwer", "asdf", "zxcv", "7890", "uiop", "hjkl")
"""A row of keys a candidate: plain for instruction following, with shift for visual quality."""
TINY = 128
"""Pictures with no side longer than this are enlarged in hard pixels: smoothing would hide their flaws."""
INLINE_BYTES = 256 * 1024
INLINE_SIDE = 1024
"""A picture file larger than INLINE_BYTES is shown as JPEG, no side longer than this: pages and database stay light."""

STYLE = """
.el-instruction { position: sticky; top: 0; z-index: 5; padding: 2px 8px;
  background: var(--color-neutral-background, #fff); }
.el-instruction h2, .el-instruction h4, .el-tile h4 { margin: 2px 0 !important; }
.el-legend h4, .el-following h4, .el-quality h4 { font-size: 13px !important; line-height: 18px !important; }
.el-pictures { display: grid; grid-template-columns: repeat(COLUMNS, minmax(0, 1fr)); gap: 8px 12px;
  align-items: start; }
.el-tile { min-width: 0; }
.el-tile .lsf-toolbar, .el-tile canvas, .el-tile [class^=filler], .el-tile [class^=image-element] {
  display: none !important; }
.el-tile .lsf-object div { position: static !important; width: 100% !important; height: auto !important;
  max-height: none !important; }
.el-tile img { position: static !important; clip: auto !important; transform: none !important; width: 100% !important;
  height: auto !important; max-height: HEIGHT; object-fit: contain; image-rendering: RENDERING; }
.el-tile .lsf-choices { display: flex; flex-wrap: nowrap; gap: 2px; margin: 0; }
.el-tile .lsf-choice { flex: 1 1 0; min-width: 0; margin: 0; }
.el-tile .lsf-choice__item, .el-tile .lsf-choice label { margin: 0 !important; padding: 0 !important; }
.el-tile .lsf-choice label > span:last-child { padding: 0 3px; }
.el-tile sup { display: none; }
"""
"""Pictures are shown by their own <img>, as wide as their tile: Label Studio's canvas, made for drawing regions, crops
in a narrow column, and its tools take keys that rate here."""

LEGEND = (
    "Instruction: 1 not done · 2 partly · 3 with a slip · 4 exactly, nothing else changed. "
    "Quality (Shift + key): 1 broken · 2 clear flaws · 3 small flaws · 4 clean."
)


def labelling_config(candidates: int, *, tiny: bool) -> str:
    """Label Studio's XML for pages of `candidates` edits; `tiny` pictures are enlarged in hard pixels.

    Data keys: instruction, original, image_1 .. image_K. Controls: if_1, vq_1 .. on the object image_1 ..
    """
    if not FEWEST <= candidates <= MOST:
        raise EditLoopError(f"{candidates} candidates a task: a page shows {FEWEST} to {MOST}.")
    tiles = candidates + 1
    rows = 1 if tiles <= 5 else 2
    style = STYLE.replace("COLUMNS", str(-(-tiles // rows))).replace("HEIGHT", "55vh" if rows == 1 else "21vh")
    style = style.replace("RENDERING", "pixelated" if tiny else "auto")
    lines = [
        "<View>",
        f"<Style>{style}</Style>",
        '<View className="el-instruction"><Header value="$instruction" size="3"/>'
        f'<View className="el-legend"><Header value="{LEGEND}" size="5"/></View></View>',
        '<View className="el-pictures">',
        f'<View className="el-tile"><Header value="Source" size="5"/>{_image("original")}</View>',
        *(_tile(position) for position in range(candidates)),
        "</View>",
        "</View>",
    ]
    return "\n".join(lines)


def config_sha256(config: str) -> str:
    """Content address of a labelling config."""
    return sha256_bytes(config.encode())


def guidelines() -> str:
    """The annotators' guidelines, HTML."""
    return files("annotation").joinpath("guidelines.html").read_text()


def shown(task: EditTask, candidates: int, seed: int) -> tuple[Candidate, ...]:
    """The task's candidates as its page shows them: in an order drawn from (seed, task), the first ones again where
    the task has fewer than `candidates` (a second rating of the same picture is not used)."""
    order = sorted(task.candidates, key=lambda one: sha256_json([seed, task.task_id, one.candidate_id]))
    return tuple(order[place % len(order)] for place in range(candidates))


def task_data(task: EditTask, images: Path, candidates: int, seed: int, config: str) -> dict[str, Any]:
    """A task's data for Label Studio. `images` is the folder of `<sha256>.png`; `key` is the page's content address."""
    order = shown(task, candidates, seed)
    ids = [one.candidate_id for one in order]
    pictures = {f"image_{place + 1}": data_uri(images / f"{one.image}.png") for place, one in enumerate(order)}
    return {
        "key": sha256_json([task.task_id, ids, config_sha256(config)])[:32],
        "task": task.task_id,
        "candidates": ids,
        "instruction": task.instruction,
        "original": data_uri(images / f"{task.source}.png"),
        **pictures,
    }


def data_uri(path: Path) -> str:
    """A picture as a `data:` address: the file's own bytes, or a smaller JPEG of a large file."""
    data, kind = path.read_bytes(), "png"
    if len(data) > INLINE_BYTES:
        picture = Image.open(io.BytesIO(data)).convert("RGB")
        picture.thumbnail((INLINE_SIDE, INLINE_SIDE))
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=95, subsampling=0)
        data, kind = buffer.getvalue(), "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def result_of(ratings: Sequence[dict[Axis, int]]) -> list[dict[str, Any]]:
    """Label Studio's annotation result for a page's ratings, one {axis: 1..4} a position."""
    return [
        {
            "from_name": f"{axis}_{place + 1}",
            "to_name": f"image_{place + 1}",
            "type": "choices",
            "value": {"choices": [str(rating[axis])]},
        }
        for place, rating in enumerate(ratings)
        for axis in AXES
    ]


def ratings_of(result: Sequence[dict[str, Any]], candidates: int) -> list[dict[Axis, int]]:
    """The ratings of a page, one {axis: 1..4} a position; a position without both axes rated is an empty dict."""
    given = {item["from_name"]: item["value"].get("choices", []) for item in result if item.get("type") == "choices"}
    found: list[dict[Axis, int]] = []
    for place in range(candidates):
        chosen = {axis: given.get(f"{axis}_{place + 1}", []) for axis in AXES}
        complete = all(len(values) == 1 and values[0] in _LEVELS for values in chosen.values())
        found.append({axis: int(values[0]) for axis, values in chosen.items()} if complete else {})
    return found


_LEVELS = tuple(str(level) for level in range(LOWEST_RATING, HIGHEST_RATING + 1))


def _tile(position: int) -> str:
    name = f"image_{position + 1}"
    keys = " ".join(KEYS[position].upper())
    controls = "".join(_choices(axis, position) for axis in AXES)
    return (
        f'<View className="el-tile"><Header value="{position + 1} · {keys}" size="5"/>{_image(name)}{controls}</View>'
    )


def _image(name: str) -> str:
    return f'<Image name="{name}" value="${name}" zoom="false" zoomControl="false" selectionControl="false"/>'


def _choices(axis: Axis, position: int) -> str:
    shift = "shift+" if axis == "vq" else ""
    choices = "".join(
        f'<Choice value="{level}" hotkey="{shift}{key}"/>' for level, key in zip(_LEVELS, KEYS[position], strict=True)
    )
    missing = quoteattr(f"{AXIS_NAMES[axis]} of edit {position + 1} is not rated yet.")
    return (
        f'<View className="{"el-quality" if axis == "vq" else "el-following"}">'
        f'<Header value="{AXIS_NAMES[axis]}" size="5"/>'
        f'<Choices name="{axis}_{position + 1}" toName="image_{position + 1}" choice="single-radio" showInline="true" '
        f'required="true" requiredMessage={missing}>{choices}</Choices></View>'
    )
