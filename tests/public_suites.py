"""Small suites in the formats in which the real ones are published, made by tests: pictures of one brightness each."""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
from PIL import Image

from editloop.evaluation.suites.imagenhub import PICTURES, RATINGS

HUB_PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
"""How the hub's `datasets` library writes an image."""


def png(brightness: int, size: int = 16, mark: int = 0) -> bytes:
    """A picture of one brightness (0..255); `mark` changes one pixel and so the bytes."""
    picture = np.full((size, size, 3), brightness, np.uint8)
    picture[0, 0] = mark
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()


def cell(brightness: int, mark: int = 0) -> dict[str, Any]:
    return {"bytes": png(brightness, mark=mark), "path": None}


def put(folder: Path, name: str, brightness: int, mark: int = 0) -> str:
    """A picture file below `folder`; its relative path."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(brightness, mark=mark))
    return name


def write_parquet(path: Path, rows: Sequence[Mapping[str, Any]], pictures: Mapping[str, pa.DataType]) -> None:
    """Rows as the hub's parquet has them, two a row group."""
    path.parent.mkdir(parents=True, exist_ok=True)
    light = pa.Table.from_pylist([{k: v for k, v in row.items() if k not in pictures} for row in rows])
    for name, kind in pictures.items():
        light = light.append_column(name, pa.array([row[name] for row in rows], kind))
    parquet.write_table(light, path, row_group_size=2)


def editscore_row(pair: str, task: str, dimension: str, better: int, worse: int, source: int = 100) -> dict[str, Any]:
    """A row of EditScore's bench; `source` marks the source picture."""
    return {
        "key": [f"{pair}-1", f"{pair}-2"],
        "instruction": f"edit {pair}",
        "input_image": cell(100, mark=source),
        "output_images": [cell(better), cell(worse)],
        "task_type": task,
        "dimension": dimension,
    }


def write_editscore(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    write_parquet(path, rows, {"input_image": HUB_PICTURE, "output_images": pa.list_(HUB_PICTURE)})


def genai_row(vote: str, left: int, right: int, source: int = 0) -> dict[str, Any]:
    return {
        "left_model": "one",
        "right_model": "other",
        "source_image": cell(100, mark=source),
        "left_output_image": cell(left),
        "right_output_image": cell(right),
        "source_prompt": "before",
        "target_prompt": "after",
        "instruct_prompt": f"edit {source}",
        "vote_type": vote,
    }


def write_genai(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """As parquet, or with the ending .arrow as `save_to_disk` writes it."""
    names = ("source_image", "left_output_image", "right_output_image")
    write_parquet(path.with_suffix(".parquet"), rows, dict.fromkeys(names, HUB_PICTURE))
    if path.suffix == ".arrow":
        table = parquet.read_table(path.with_suffix(".parquet"))
        path.with_suffix(".parquet").unlink()
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table, max_chunksize=2)
        (path.parent / "dataset_info.json").write_text("{}")
        (path.parent / "state.json").write_text("{}")


def group_rows(group: str, ranking: str, brightness: Sequence[int], source: int = 0) -> list[dict[str, Any]]:
    """The rows of one group of EditReward's bench: a comparison each."""
    letters = "ABCD"[: len(brightness)]
    rows = []
    for i, one in enumerate(letters):
        for j in range(i + 1, len(letters)):
            other = letters[j]
            order = ranking if "=" in ranking else f"{one}>{other}"
            if "=" not in ranking and ranking.index(other) < ranking.index(one):
                order = f"{other}>{one}"
            rows.append(
                {
                    "id": f"{group}_{one}vs{other}",
                    "dataset": f"{len(letters)}pair",
                    "instruction": f"edit {group}",
                    "source_image": cell(100, mark=source),
                    "candidate_1": cell(brightness[i]),
                    "candidate_2": cell(brightness[j]),
                    "ranking": order,
                    "comparison_type": f"{one}vs{other}",
                    "model_1": "m",
                    "model_2": "n",
                }
            )
    return rows


def write_groups(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    write_parquet(path, rows, dict.fromkeys(("source_image", "candidate_1", "candidate_2"), HUB_PICTURE))


def write_imagenhub(folder: Path, ratings: Mapping[str, Sequence[Sequence[str]]], shown: Sequence[str]) -> list[str]:
    """ImagenHub with three models, of which `shown` have pictures. ratings: by rater, a row of cells a source; returns
    the sources' file names."""
    models = ("InstructPix2Pix", "MagicBrush", "Imagic")
    count = len(next(iter(ratings.values())))
    names = [f"sample_{number}_1.jpg" for number in range(count)]
    (folder / RATINGS).mkdir(parents=True)
    for rater, rows in ratings.items():
        lines = ["\t".join(("uid", *models)), *("\t".join((name, *row)) for name, row in zip(names, rows, strict=True))]
        (folder / RATINGS / f"{rater}.tsv").write_text("\n".join(lines) + "\n")
    for number, name in enumerate(names):
        put(folder, f"{PICTURES}/input/{name}", 100, mark=number)
        for model in shown:
            put(folder, f"{PICTURES}/{model}/{name}", 50 + number, mark=models.index(model))
    lookup = {name: {"instruction": f"edit {name}"} for name in names}
    (folder / PICTURES / "dataset_lookup.json").write_text(json.dumps(lookup))
    return names


def write_aurora(folder: Path, pairs: Sequence[tuple[str, int, int]], points: Sequence[tuple[str, float, int]]) -> None:
    """AURORA: pairs of (winner: one, other or tie; brightness of each), points of (model, score, brightness)."""
    records = [
        {
            "input": put(folder, f"images/in{number}.png", 100, mark=number),
            "gens": [put(folder, f"images/a{number}.png", one), put(folder, f"images/b{number}.png", other)],
            "prompt": f"edit {number}",
            "models": ["one", "other"],
            "winner": winner,
        }
        for number, (winner, one, other) in enumerate(pairs)
    ]
    (folder / "human_ratings_pairwise.json").write_text(json.dumps(records))
    rated = [
        {
            "input": put(folder, f"images/point{number}.png", 100, mark=100 + number),
            "gen": put(folder, f"images/g{number}.png", brightness),
            "prompt": f"edit {number}",
            "model": model,
            "score": score,
        }
        for number, (model, score, brightness) in enumerate(points)
    ]
    (folder / "human_ratings_updated_prompt.json").write_text(json.dumps(rated))
