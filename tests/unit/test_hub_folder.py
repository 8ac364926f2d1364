"""A dataset as a folder of the Hugging Face hub: the same rows, with pictures as `datasets` stores them, and a card."""

import io
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from huggingface_hub import DatasetCard
from PIL import Image
from typer.testing import CliRunner

from editloop.content import read_manifest
from editloop.datasets.hub_folder import CARD_FILE, PICTURE, export_hub_folder
from editloop.datasets.shards import PICTURES, shards
from editloop.datasets.splits import SPLITS
from editloop.errors import EditLoopError
from pipelines.cli import app
from tests.pair_datasets import write_pairs


def test_every_row_is_there_and_pictures_are_pictures(tmp_path: Path) -> None:
    dataset = write_pairs(tmp_path / "dataset", tasks=40, shapes=[(32, 32), (300, 200)])
    export_hub_folder(dataset, tmp_path / "hub")
    for split in SPLITS:
        ours = pq.ParquetDataset(sorted((tmp_path / "hub" / "candidates").glob(f"{split}-*.parquet"))).read()
        rows = [row for path in shards(dataset, "candidates", split) for row in pq.read_table(path).to_pylist()]
        assert len(rows) == 120
        for row, original in zip(ours.to_pylist(), rows, strict=True):
            for name in PICTURES:
                encoded = original[name]
                original[name] = None if encoded is None else {"bytes": encoded, "path": None}
            assert row == original
        picture = ours["image"][0].as_py()
        assert Image.open(io.BytesIO(picture["bytes"])).size == (32, 32)
        ours, theirs = (
            pq.read_table(folder / name).to_pylist()
            for folder, name in (
                (tmp_path / "hub" / "pairs", f"{split}-00000.parquet"),
                (dataset, f"pairs-{split}-00000.parquet"),
            )
        )
        assert ours == theirs


def test_the_schema_names_the_features_as_datasets_does(tmp_path: Path) -> None:
    """`datasets` is no dependency; its `Features.from_arrow_schema` reads {"info": {"features": ..}} of this key."""
    export_hub_folder(write_pairs(tmp_path / "dataset"), tmp_path / "hub")
    schema = pq.read_schema(tmp_path / "hub" / "candidates" / "train-00000.parquet")
    features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    assert list(features) == schema.names
    for name, feature in features.items():
        assert (feature == {"_type": "Image"}) == (name in PICTURES) == (schema.field(name).type == PICTURE)
    assert features["if_mean"] == {"dtype": "float64", "_type": "Value"}
    assert features["ratings"] == {"dtype": "int64", "_type": "Value"}
    assert features["instruction"] == {"dtype": "string", "_type": "Value"}
    schema = pq.read_schema(tmp_path / "hub" / "pairs" / "train-00000.parquet")
    features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    assert features["overall_order"] == {"dtype": "int8", "_type": "Value"}


def test_the_card_says_what_is_where_and_the_hubs_own_reader_takes_it(tmp_path: Path) -> None:
    dataset = write_pairs(tmp_path / "dataset")
    done = CliRunner().invoke(
        app, ["dataset", "export", str(dataset), "--out", str(tmp_path / "our-hub")], catch_exceptions=False
    )
    assert done.output.splitlines() == [f"{split}: 3 tasks, 9 edits, 9 pairs" for split in SPLITS]
    card = DatasetCard.load(tmp_path / "our-hub" / CARD_FILE)
    assert card.data.pretty_name == "our-hub"
    assert card.data.size_categories == ["n<1K"]
    assert card.data.license is None
    configs = {config["config_name"]: config["data_files"] for config in card.data.to_dict()["configs"]}
    assert list(configs) == ["candidates", "pairs"]
    for files in configs.values():
        assert [file["split"] for file in files] == list(SPLITS)
        for file in files:
            assert list((tmp_path / "our-hub").glob(file["path"])), file
    assert "| train | 3 | 9 | 9 |" in card.text
    assert read_manifest(dataset)["sha256"] in card.text
    read_manifest(tmp_path / "our-hub", check=True)


def test_a_dataset_that_changed_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    dataset = write_pairs(tmp_path / "dataset")
    path = dataset / "pairs-train-00000.parquet"
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(EditLoopError, match=r"changed since it was written: pairs-train-00000\.parquet"):
        export_hub_folder(dataset, tmp_path / "hub")
    assert not (tmp_path / "hub").exists()
