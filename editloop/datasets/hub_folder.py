"""Export of a dataset folder as a folder of the Hugging Face hub, which `datasets.load_dataset(FOLDER, NAME)` reads.

    README.md                         the dataset's card, with the hub's metadata
    candidates/train-00000.parquet    a row for each edit, with source, references, target and edit as pictures
    pairs/train-00000.parquet         a row for each pair of edits; `a` and `b` are the edits' `candidate_id`

The schema of each file names its columns' features as `datasets` writes them, so that pictures come as pictures.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from jinja2 import Environment

from editloop.content import complete_folder, read_manifest, write_file
from editloop.datasets.shards import PICTURES, REFERENCES, Kind, shards
from editloop.datasets.splits import SPLITS
from editloop.errors import EditLoopError
from editloop.progress import track

CARD_FILE = "README.md"
"""Name of the card of a folder on the hub."""
PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
"""A picture as `datasets` stores it: an encoded file, without a path."""
PICTURES_LIST = pa.list_(PICTURE)
"""Several pictures in one cell."""
SIZES = {1_000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K", 1_000_000: "100K<n<1M"}
"""The hub's categories of size, by their upper ends."""
CARD = Environment(keep_trailing_newline=True).from_string(
    """---
{{ metadata }}# license: choose one of https://hf.co/docs/hub/repositories-licenses
---
# {{ title }}

Experts rated edits of pictures on instruction following and visual quality, 1 to 4 each. Edits that the same people
rated make pairs, with an order and its confidence.

```python
from datasets import load_dataset

edits = load_dataset("{{ title }}", "candidates", split="train")
pairs = load_dataset("{{ title }}", "pairs", split="train")
```

| split | tasks | edits | pairs |
|---|---|---|---|
{%- for split in counts %}
| {{ split.name }} | {{ split.tasks }} | {{ split.candidates }} | {{ split.pairs }} |
{%- endfor %}

`candidates`: `source`, {% if references %}`references` (image 2 and those after it),
{% endif %}`target` (the known right result, where there is one) and `image` are pictures, `if_mean` and
`vq_mean` the mean ratings, weighted by how reliable each person's ratings are, `ratings` their number.

`pairs`: `a` and `b` are values of `candidate_id`. An order is 1 where a is better, -1 where b is, 0 for a tie; a margin
is the difference of the mean ratings, a confidence the probability of the order, 0 to 1. Axes are `if` (instruction
following) and `vq` (visual quality); `overall` is their sum.

Tasks whose pictures are equal or look alike are in one split. Who rated what is not in this folder.
Content of the dataset that it was made from: sha256 {{ sha256 }}.
"""
)


class SplitCounts(NamedTuple):
    """Rows of one split."""

    name: str
    tasks: int
    candidates: int
    pairs: int


def picture_schema(columns: Mapping[str, pa.DataType]) -> pa.Schema:
    """Return the schema of a parquet file that `datasets` reads with pictures as pictures.

    The metadata is what `datasets` calls the features, under the key that it reads them from
    (`Features.from_arrow_schema`).

    Args:
        columns: Type of each column by its name, in order; PICTURE for a picture, PICTURES_LIST for several. Others are
            strings, integers, floats.
    """
    features = {name: _feature(kind) for name, kind in columns.items()}
    return pa.schema(list(columns.items()), {"huggingface": json.dumps({"info": {"features": features}})})


def export_hub_folder(dataset: Path, output: Path) -> list[SplitCounts]:
    """Write a dataset folder as a folder of the Hugging Face hub, one row group at a time.

    Args:
        dataset: The dataset folder.
        output: Folder to write. Its name becomes the title of its card.

    Returns:
        The counts of each split.

    Raises:
        EditLoopError: The dataset has changed since it was written, or is none with pairs.
    """
    manifest = read_manifest(dataset, check=True)
    counts = []
    facts: dict[str, Any] = {"dataset_sha256": manifest["sha256"]}
    with complete_folder(output, facts) as folder:
        for split in SPLITS:
            tasks: set[str] = set()
            for batch in _copied(dataset, folder, "candidates", split):
                tasks.update(map(str, batch.column("task_id").to_pylist()))
            pairs = sum(batch.num_rows for batch in _copied(dataset, folder, "pairs", split))
            candidates = sum(pq.read_metadata(path).num_rows for path in shards(dataset, "candidates", split))
            counts.append(SplitCounts(split, len(tasks), candidates, pairs))
        references = REFERENCES in pq.read_schema(shards(dataset, "candidates", "train")[0]).names
        write_file(folder / CARD_FILE, _card(output.name, counts, str(manifest["sha256"]), references))
        facts["pairs"] = sum(split.pairs for split in counts)
    return counts


def _copied(dataset: Path, folder: Path, kind: Kind, split: str) -> Iterator[pa.RecordBatch]:
    """Copy the shards of a kind and split into the hub's layout, and yield each batch of rows as it was."""
    paths = shards(dataset, kind, split)
    kinds = {REFERENCES: PICTURES_LIST} | dict.fromkeys(PICTURES, PICTURE)
    schema = picture_schema({field.name: kinds.get(field.name, field.type) for field in pq.read_schema(paths[0])})
    (folder / kind).mkdir(exist_ok=True)
    for number, path in enumerate(track(paths, f"{kind}: {split}")):
        opened = pq.ParquetFile(path)
        with pq.ParquetWriter(folder / kind / f"{split}-{number:05d}.parquet", schema, compression="zstd") as writer:
            for group in range(opened.num_row_groups):
                try:
                    batches = list(opened.read_row_group(group).to_batches())
                except (pa.ArrowException, OSError) as error:
                    raise EditLoopError(f"{path}: row group {group} cannot be read ({error}).") from None
                writer.write_table(pa.Table.from_batches([_with_pictures(batch, schema) for batch in batches], schema))
                yield from batches


def _with_pictures(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Return a batch whose columns of encoded images are pictures of `datasets`."""
    columns = []
    for field in schema:
        column = batch.column(field.name)
        if field.type == PICTURE:
            column = _pictures(column)
        elif isinstance(column, pa.ListArray):
            column = pa.ListArray.from_arrays(column.offsets, _pictures(column.values))
        columns.append(column)
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _pictures(encoded: "pa.Array[Any]") -> pa.StructArray:
    paths = pa.nulls(len(encoded), pa.string())
    return pa.StructArray.from_arrays([encoded, paths], fields=list(PICTURE), mask=encoded.is_null())


def _feature(kind: pa.DataType) -> dict[str, Any]:
    """Return what `datasets` says of a column."""
    if kind == PICTURES_LIST:
        return {"feature": {"_type": "Image"}, "_type": "Sequence"}
    return {"_type": "Image"} if kind == PICTURE else {"dtype": _dtype(kind), "_type": "Value"}


def _dtype(kind: pa.DataType) -> str:
    """Return what `datasets` calls a type: as Arrow does, but for Arrow's "float" and "double"."""
    return f"float{kind.bit_width}" if pa.types.is_floating(kind) else str(kind)


def _card(title: str, counts: list[SplitCounts], sha256: str, references: bool) -> str:
    pairs = sum(split.pairs for split in counts)
    kinds: tuple[Kind, ...] = ("candidates", "pairs")
    metadata = {
        "pretty_name": title,
        "task_categories": ["image-to-image"],
        "tags": ["image-editing", "preference", "reward-modeling"],
        "size_categories": [next((name for end, name in SIZES.items() if pairs < end), "n>1M")],
        "configs": [
            {
                "config_name": kind,
                "data_files": [{"split": split.name, "path": f"{kind}/{split.name}-*.parquet"} for split in counts],
            }
            for kind in kinds
        ],
    }
    text = yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True)
    return CARD.render(metadata=text, title=title, counts=counts, sha256=sha256, references=references)
