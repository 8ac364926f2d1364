"""What is fuzzed: a parser, the inputs that it begins with, and how an input is changed without breaking its shape.

Nothing of EditLoop is imported before a target is opened, so that atheris can instrument what is.
"""

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, NamedTuple
from zlib import crc32

from tests.json_changes import change_bytes, change_text

ROOT = Path(__file__).parents[2]
Parse = Callable[[bytes], bool]
"""Reads an input, and returns whether it is a valid one. For a faulty one it may raise one of the target's refusals."""
Mutate = Callable[[bytes, Random], bytes]
IMPORTED_WHOLE = 1000
"""One of so many exports is imported with all that follows, which takes a hundred times as long as to read it."""


class Target(NamedTuple):
    """A parser to be fuzzed."""

    modules: tuple[str, ...]
    """Packages or modules whose branches guide the fuzzer."""
    seeds: Callable[[], list[bytes]]
    """Returns the inputs to begin with."""
    open: Callable[[Path], tuple[Parse, tuple[type[Exception], ...]]]
    """Imports the parser and prepares a folder for it; returns it and the exceptions that refuse an input."""
    mutate: Mutate
    """Changes an input but keeps its shape."""


def png(seed: int) -> bytes:
    """Return a small picture, a different one for each seed."""
    import numpy as np
    from PIL import Image

    from editloop.data.picture_file import png_bytes

    return png_bytes(Image.fromarray(np.random.default_rng(seed).integers(0, 256, (17, 16, 3), dtype=np.uint8)))


def edits_seeds() -> list[bytes]:
    whole = {
        "id": "kitchen-1",
        "instruction": "Make the kettle of image 2 red.",
        "source": "images/0.png",
        "task": "recolour",
        "references": ["images/1.png", "images/2.png"],
        "target": "images/3.png",
        "candidates": [{"image": "images/4.png", "editor": "a"}, {"image": "images/5.png", "editor": "b"}],
    }
    short = {"id": "kitchen-2", "instruction": "Remove it.", "source": "images/1.png"}
    composed = {"id": "é", "instruction": "Añade café ☕", "source": "images/e\u0301.png"}
    documents = ([whole], [short], [whole, short, composed], [short, {**short, "id": "kitchen-3"}])
    return [("\n".join(map(json.dumps, document)) + "\n").encode() for document in documents]


def open_edits(folder: Path) -> tuple[Parse, tuple[type[Exception], ...]]:
    from editloop.data.edits_file import read_edits
    from editloop.errors import EditLoopError

    (folder / "images").mkdir()
    for name in ("0", "1", "2", "3", "4", "5", "é"):
        (folder / "images" / f"{name}.png").write_bytes(png(sum(name.encode())))
    path, outside = folder / "edits.jsonl", folder.parent / "outside.png"
    outside.write_bytes(png(99))

    def parse(data: bytes) -> bool:
        path.write_bytes(data)
        rows = read_edits(path)
        assert len({row.id for row in rows}) == len(rows)
        for row in rows:
            for picture in (row.source, *row.references, *(candidate.image for candidate in row.candidates)):
                assert picture.resolve().is_relative_to(folder.resolve()), f"{picture} is outside"
        return True

    return parse, (EditLoopError,)


def campaign_export() -> list[dict[str, Any]]:
    """Return an export of a campaign's project as Label Studio writes it, with what annotators may do in it."""

    def chosen(control: str, on: str, value: str) -> dict[str, Any]:
        return {"from_name": control, "to_name": on, "type": "choices", "value": {"choices": [value]}}

    def annotation(number: int, user: int | None, result: list[Any], **more: Any) -> dict[str, Any]:
        return {
            "id": number,
            "completed_by": user,
            "updated_by": user,
            "import_id": None,
            "result": result,
            "was_cancelled": False,
            "lead_time": 12.5,
            "created_at": "2026-03-02T10:00:00.123456Z",
            "updated_at": "2026-03-02T10:00:01.000000Z",
            **more,
        }

    rated = [chosen(f"{axis}_{place}", f"image_{place}", "3") for place in (1, 2) for axis in ("if", "vq")]
    note = {"from_name": "note", "to_name": "original", "type": "textarea", "value": {"text": ["Blurred."]}}
    refused = [chosen("cannot", "original", "other"), note]
    return [
        {
            "id": 100 + number,
            "data": {"key": key, "image_1": "x.png"},
            "annotations": annotations,
            "drafts": [],
            "predictions": [],
            "total_annotations": len(annotations),
        }
        for number, (key, annotations) in enumerate(
            {
                "p": [annotation(1, 1, rated), annotation(2, 2, rated)],
                "q": [annotation(3, 1, refused), annotation(4, 3, [], was_cancelled=True)],
                "r": [annotation(5, 1, rated, updated_by=3, import_id=4), annotation(6, None, rated[:3])],
            }.items()
        )
    ]


def answers_seeds() -> list[bytes]:
    tasks = campaign_export()
    return [json.dumps(tasks).encode(), *(json.dumps([task], indent=1).encode() for task in tasks), b"[]"]


def open_answers(folder: Path) -> tuple[Parse, tuple[type[Exception], ...]]:
    from annotation.campaigns import answers as module
    from annotation.campaigns.answer_export import TruncatedExportError, read_export
    from annotation.campaigns.campaign import Campaign
    from annotation.campaigns.kept_answers import KeptAnswer
    from annotation.campaigns.lead_queue import Snapshot
    from annotation.campaigns.record import CampaignRecord
    from editloop.data.vocabulary import Page
    from editloop.errors import EditLoopError

    page = {"kind": "task", "instruction": "x", "source": "s", "candidates": ["a", "b"], "images": ["a", "b"]}
    pages = {key: Page.model_validate({**page, "key": key, "task_id": f"of {key}", "overlap": 2}) for key in "pqr"}
    campaign = Campaign.model_validate(
        {
            **dict.fromkeys(("key", "name", "config_sha256", "candidates_sha256", "pages_sha256"), "k"),
            **dict.fromkeys(("project_id", "seed", "pages", "wanted", "tasks", "places", "overlap"), 2),
            **{"url": "http://studio/projects/2", "tiny": True, "gates": {}, "lead": "lee"},
            "annotators": ("ada", "bo"),
        }
    )
    record = CampaignRecord(campaign, campaign, {}, {1: "ada", 2: "bo", 3: "lee"}, {}, {}, "run", {})
    copy = {"annotation_id": 4, "queue": False, "page": "r", "annotator": "ada", "skipped": False, "result": []}
    kept = {4: KeptAnswer.model_validate({**copy, "seconds": 1.0, "created_at": "2026-03-02T10:00:00Z"})}
    vars(module)["read_kept_answers"] = lambda key: kept  # it asks MLflow

    def parse(data: bytes) -> bool:
        export = read_export(data)
        answers = module.read_answers(export, pages, record)
        module.progress(record, pages, answers)
        module.extract_judgements(pages, answers)
        answers.disturbed(pages)
        snapshot = Snapshot(export, export, answers, answers)
        json.dumps([answer.model_dump_json() for answer in snapshot.kept_answers()])
        return bool(snapshot.sha256 and answers.counting())

    return parse, (EditLoopError, TruncatedExportError)


def judge_answer_seeds() -> list[bytes]:
    lines = (ROOT / "tests" / "parity" / "editscore-outputs.jsonl").read_bytes().splitlines()
    texts = [value for line in lines for value in json.loads(line).values() if isinstance(value, str)]
    aspects = "1. Text Faithfulness:\n## Justification: it is red.\n## Score: 3.5\n2. Quality:\n## Score: N/A\n"
    scores = "Brief reasoning: the lamp is red.\n**Prompt Compliance**: 5/5\n- Visual Naturalness: 4.\n"
    return [text.encode(errors="surrogatepass") for text in (*texts, aspects, scores)]


def open_judge_answers(folder: Path) -> tuple[Parse, tuple[type[Exception], ...]]:
    from editloop.models.edit_score.answers import ParsedAnswer, parse_answer
    from editloop.scoring.aspect_answers import read_aspects
    from editloop.scoring.line_answers import read_score_lines

    headings = {"faithfulness": "Text Faithfulness", "quality": "Quality"}

    def parse(data: bytes) -> bool:
        text = data.decode(errors="replace")
        answer = parse_answer(text, 25)
        if isinstance(answer, ParsedAnswer):
            assert all(0 <= point <= 25 for point in answer.points), answer.points
        aspects = read_aspects(text, headings, 1, 5, frozenset({"quality"}))
        lines = read_score_lines(text, 2, 1, 5)
        for scores in (aspects, lines):
            if not isinstance(scores, str):
                assert all(1 <= score <= 5 for score in scores.values()), scores
        return not (isinstance(answer, str) and isinstance(aspects, str) and isinstance(lines, str))

    return parse, ()


def change_answer(data: bytes, chance: Random) -> bytes:
    """Change an answer's JSON, wherever it stands in the text."""
    text = data.decode(errors="replace")
    start, end = text.find("{"), text.rfind("}") + 1
    if not 0 <= start < end:
        return data
    changed = text[:start] + change_text(text[start:end], chance) + text[end:]
    return changed.encode(errors="surrogatepass")


EXPORT_KINDS = ("json", "min.json", "csv")


def export_seeds() -> list[bytes]:
    """Return each export after a byte that says which project it is of, and in which format."""
    from tests.label_studio_projects import EXPORTS, PROJECTS

    return [
        bytes([number * len(EXPORT_KINDS) + kind]) + (EXPORTS / f"{name}.{ending}").read_bytes()
        for number, name in enumerate(PROJECTS)
        for kind, ending in enumerate(EXPORT_KINDS)
    ]


def open_exports(folder: Path) -> tuple[Parse, tuple[type[Exception], ...]]:
    from functools import lru_cache, partial

    from annotation.formats.label_studio_answers import LeftOut
    from annotation.formats.label_studio_controls import picture_file
    from annotation.formats.label_studio_import import _check_names, _understood, import_label_studio
    from annotation.formats.label_studio_mapping import read_mapping
    from editloop.errors import EditLoopError
    from tests.label_studio_projects import PROJECTS, write_mapping, write_pictures

    write_pictures(folder / "pictures")
    files = [write_mapping(folder / f"{name}.yaml", name, annotators={2: "anna", 3: "ben"}) for name in PROJECTS]
    mappings = [(file, read_mapping(file)) for file in files]
    # What an import loads at its first call takes seconds.
    (folder / "first.json").write_bytes(export_seeds()[0][1:])
    import_label_studio(folder / "first.json", files[0], folder / "c", folder / "j", images=folder / "pictures")
    find_picture = lru_cache(1000)(partial(picture_file, folder / "pictures"))

    def parse(data: bytes) -> bool:
        which = data[0] % (len(mappings) * len(EXPORT_KINDS)) if data else 0
        (mapping, settings), kind = mappings[which // len(EXPORT_KINDS)], EXPORT_KINDS[which % len(EXPORT_KINDS)]
        export = folder / f"export.{kind}"
        export.write_bytes(data[1:])
        _check_names(export, mapping, settings)
        left_out = LeftOut()
        answers = [answer for _, answer in _understood(export, settings, find_picture, left_out)]
        left_out.notes()
        is_valid = any(not isinstance(answer, str) for answer in answers)
        if is_valid and crc32(data) % IMPORTED_WHOLE == 0:
            done = import_label_studio(export, mapping, folder / "c", folder / "j", images=folder / "pictures")
            assert done.judgements
        return is_valid

    return parse, (EditLoopError,)


def change_export(data: bytes, chance: Random) -> bytes:
    if chance.randrange(50) == 0:
        return bytes([chance.randrange(256)]) + data[1:]
    return data[:1] + change_bytes(data[1:], chance)


def weight_file(header: Any, values: bytes) -> bytes:
    """Return a safetensors file of a header, given as JSON's value or as bytes, and the values after it."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + values


def weights_seeds() -> list[bytes]:
    """Return files of weights after a byte 0, and indexes of such files after a byte 1."""
    kinds = {"F32": 4, "BF16": 2, "F16": 2, "F64": 8, "I8": 1}
    files = [weight_file({}, b""), weight_file({"__metadata__": {"format": "pt"}}, b"")]
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for number, (kind, size) in enumerate(kinds.items()):
        start, end = end, end + 6 * size
        header[f"layer.{number}"] = {"dtype": kind, "shape": [2, 3], "data_offsets": [start, end]}
        one = {"a": {"dtype": kind, "shape": [6], "data_offsets": [0, 6 * size]}}
        files.append(weight_file(one, bytes(6 * size)))
    scalar = {"a": {"dtype": "F32", "shape": [], "data_offsets": [0, 4]}}
    empty = {"a": {"dtype": "F32", "shape": [0, 3], "data_offsets": [0, 0]}}
    files += [weight_file(header, bytes(end)), weight_file(scalar, b"\0\0\x80\x7f"), weight_file(empty, b"")]
    index = {"metadata": {"total_size": 8}, "weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    lost = {"weight_map": {"a": "model-1.safetensors", "b": "model-3.safetensors"}}
    return [*(b"\0" + file for file in files), *(b"\1" + json.dumps(stated).encode() for stated in (index, lost))]


def open_weights(folder: Path) -> tuple[Parse, tuple[type[Exception], ...]]:
    from editloop.errors import EditLoopError
    from editloop.models.backbones.weight_files import INDEX, read_tensors, survey_weights

    alone, sharded = folder / "alone", folder / "sharded"
    alone.mkdir()
    sharded.mkdir()
    for number, key in ((1, "a"), (2, "b")):
        tensor = {key: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}
        (sharded / f"model-{number}.safetensors").write_bytes(weight_file(tensor, bytes(4)))

    def parse(data: bytes) -> bool:
        model, path = (sharded, sharded / INDEX) if data[:1] == b"\1" else (alone, alone / "model.safetensors")
        path.write_bytes(data[1:])
        tensors = survey_weights(model)
        for name, tensor in read_tensors(tensors):
            assert tuple(tensor.shape) == tensors[name].shape
            assert tensor.numel() * tensor.itemsize <= len(data)
            assert tensors[name].path.parent == model
        return bool(tensors)

    return parse, (EditLoopError,)


def change_weights(data: bytes, chance: Random) -> bytes:
    """Change a header's JSON, and its length with it; sometimes its length alone. Or an index's JSON."""
    if data[:1] == b"\1":
        return data[:1] + change_bytes(data[1:], chance)
    if len(data) < 9:
        return data
    (length,) = struct.unpack("<Q", data[1:9])
    if chance.randrange(10) == 0:
        lie = chance.choice((0, 1, length - 1, length + 1, len(data), len(data) - 9, 2**31, 2**62, 2**64 - 1))
        return data[:1] + struct.pack("<Q", lie % 2**64) + data[9:]
    header, values = data[9 : 9 + length], data[9 + length :]
    return data[:1] + weight_file(change_bytes(header, chance), values)


TARGETS: dict[str, Target] = {
    "edits": Target(("editloop.data", "editloop.errors", "editloop.text_file"), edits_seeds, open_edits, change_bytes),
    "answers": Target(("annotation.campaigns",), answers_seeds, open_answers, change_bytes),
    "judge-answers": Target(
        ("editloop.models.edit_score.answers", "editloop.scoring"),
        judge_answer_seeds,
        open_judge_answers,
        change_answer,
    ),
    "exports": Target(("annotation.formats", "editloop.data"), export_seeds, open_exports, change_export),
    "weights": Target(("editloop.models.backbones",), weights_seeds, open_weights, change_weights),
}


def scratch_folder() -> str | None:
    """Return a folder in memory for the inputs, which are written thousands of times; None for the usual one."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
