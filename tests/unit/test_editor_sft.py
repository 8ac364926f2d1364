"""Supervised fine-tuning of an editor: what is held out, the loss by hand, pictures of several shapes, settings."""

import json
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from PIL import Image

from components.editor_sft.stage import fine_tune
from editloop.content import complete_folder
from editloop.data.edits_file import read_edits
from editloop.errors import EditLoopError
from editloop.models.editors.opening import open_editor
from editloop.models.editors.protocol import Conditioning
from editloop.settings_file import preset_names
from editloop.training.distributed import step_seed
from editloop.training.editor_sft.settings import PRESETS, SftSettings, read_sft_preset
from editloop.training.editor_sft.training_task import EditTrainingTask, split_rows
from editloop.training.encoding_store import EncodingStore
from editloop.training.flow_matching import flow_matching_loss, noised
from editloop.training.flow_training import unit_generators

pytestmark = pytest.mark.floats


def edits_folder(folder, sides, targets=True):
    """A row a side: a source of one colour, (height, width), and a target of another."""
    rng = np.random.default_rng(0)
    with complete_folder(folder) as out:
        lines = []
        for place, (height, width) in enumerate(sides):
            for name in ("source", "target"):
                colour = tuple(int(one) for one in rng.integers(0, 256, 3))
                Image.new("RGB", (width, height), colour).save(out / f"{name}-{place}.png")
            line = {"id": f"row-{place}", "instruction": f"edit {place}", "source": f"source-{place}.png"}
            lines.append(line | ({"target": f"target-{place}.png"} if targets else {}))
        (out / "edits.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.fixture(scope="module")
def editor():
    return open_editor("tiny-editor")


def test_held_out_tasks_follow_from_content_and_share_no_source(tmp_path):
    rows = read_edits(edits_folder(tmp_path / "edits", [(32, 32)] * 20))
    parts = split_rows(rows, 0.2)
    assert {split: len(part) for split, part in parts.items()} == {"train": 16, "validation": 4}
    turned = split_rows(rows[::-1], 0.2)
    assert {row.id for row in turned["validation"]} == {row.id for row in parts["validation"]}
    assert len(split_rows(rows, 0.001)["validation"]) == 1
    with pytest.raises(EditLoopError, match="one source picture"):
        split_rows(rows[:1], 0.2)


def lesson_of(editor, rows, tmp_path, **told):
    """The training's view of rows that are both its splits, all of them encoded."""
    settings = SftSettings(training=training(), **told)
    store = EncodingStore(tmp_path / "encodings", most_bytes=0)
    lesson = EditTrainingTask(editor, {"train": rows, "validation": rows}, settings, [], store)
    for rank in range(2):
        lesson.encode({"train": range(len(rows))}, rank=rank, ranks=2)
    return lesson


def test_a_loss_is_that_of_its_tasks_one_by_one(editor, tmp_path):
    rows = read_edits(edits_folder(tmp_path / "edits", [(32, 32)] * 5))
    lesson = lesson_of(editor, rows, tmp_path)
    torch.manual_seed(20_014)
    assert step_seed() == 2
    with torch.no_grad():
        found = lesson.loss(None, lesson.batch("train", [3, 0, 4]))
        parts = [lesson.loss(None, lesson.batch("train", [unit])) for unit in (3, 0, 4)]
        assert float(found) == pytest.approx(float(torch.stack(parts).mean()), rel=1e-5)
        (drawn,) = unit_generators(2, [3])
        sigma, size = torch.rand(1, generator=drawn), (32, 32)
        noise = editor.noise(1, size, drawn)
        source, target = (np.asarray(Image.open(path))[None] for path in (rows[3].source, rows[3].target))
        picture, condition = editor.latents(target), editor.encode([rows[3].instruction], source)
        velocity = editor.velocity(noised(picture, noise, sigma), sigma, condition, 1.0)
    assert float(parts[0]) == pytest.approx(float(flow_matching_loss(velocity, picture, noise)), rel=1e-5)


def test_the_held_out_loss_is_the_same_at_every_look(editor, tmp_path):
    rows = read_edits(edits_folder(tmp_path / "edits", [(32, 32)] * 3))
    lesson = lesson_of(editor, rows, tmp_path)
    found = []
    with torch.no_grad():
        for parts in ([[0, 1, 2]], [[2], [0, 1]]):
            torch.manual_seed(len(parts))
            sums = [lesson.measure(None, lesson.batch("validation", part)) for part in parts]
            found.append(lesson.figures({key: float(sum(one[key] for one in sums)) for key in sums[0]})["loss"])
    assert found[0] == pytest.approx(found[1], rel=1e-5)


def test_a_target_that_is_its_source_is_read_alike_where_both_are_made_smaller(editor, tmp_path):
    folder = edits_folder(tmp_path / "edits", [(80, 72)])
    for name in ("source", "target"):
        noise = np.random.default_rng(1).integers(0, 256, (80, 72, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{name}-0.png")
    tensors = lesson_of(editor, read_edits(folder), tmp_path).batch("train", [0]).tensors
    (target,), (source,) = ([part for name, part in tensors.items() if one in name] for one in ("target", "source"))
    assert torch.equal(target, source)


class AnyShape:
    """An editor of pictures of any shape, whose velocity is zero: the loss is that of noise and picture alone."""

    network = torch.nn.Linear(1, 1)

    def size_for(self, height, width, area=None):
        return height, width

    def encoders_at_hand(self):
        return nullcontext()

    def encode(self, instructions, sources):
        shapes = torch.tensor([sources.shape[1:]] * len(sources))
        return Conditioning(sources.shape[1:3], {"shape": shapes})

    def latents(self, pictures):
        return torch.from_numpy(pictures).float().flatten(1)[:, :, None]

    def noise(self, count, size, generator):
        return torch.randn(count, size[0] * size[1] * 3, 1, generator=generator)

    def velocity(self, x, sigma, condition, guidance):
        assert len(condition) == len(x)
        assert x.shape[1] == condition.parts["shape"].prod(1).unique().item()
        return torch.zeros_like(x)


def test_tasks_of_several_shapes_meet_in_one_batch(tmp_path):
    rows = read_edits(edits_folder(tmp_path / "edits", [(32, 32), (16, 48), (32, 32), (48, 16)]))
    lesson = lesson_of(AnyShape(), rows, tmp_path)
    batch = lesson.batch("train", [0, 1, 2, 3])
    assert {key: len(value) for key, value in batch.tensors.items() if key.endswith("units")} == {
        "32x32 units": 2,
        "16x48 units": 1,
        "48x16 units": 1,
    }
    parts = [lesson.loss(None, lesson.batch("train", [unit])) for unit in range(4)]
    assert float(lesson.loss(None, batch)) == pytest.approx(float(torch.stack(parts).mean()), rel=1e-5)


def training(**changes):
    return {"steps": 2, "learning_rate": 1e-3, **changes}


def test_every_preset_loads_and_what_cannot_be_is_refused(tmp_path):
    for name in preset_names(PRESETS):
        settings = read_sft_preset(name)
        assert settings.changed(steps=7, seed=3).training.model_dump() == {
            **settings.training.model_dump(),
            "steps": 7,
            "epochs": None,
            "seed": 3,
        }
    for word, wrong in {
        "targets": {"targets": ["to_q"]},
        "adapter.dropout": {"training": training(adapter={"dropout": 0.1})},
        "zero_stage 3": {"training": training(zero_stage=3, adapter={})},
    }.items():
        with pytest.raises(ValueError, match=word):
            SftSettings.model_validate({"training": training(), **wrong})
    with pytest.raises(EditLoopError, match=r"preset 'none': no such file or name; there are published, smallest"):
        read_sft_preset("none")


def test_edits_without_a_target_are_refused_before_anything_starts(tmp_path):
    edits = edits_folder(tmp_path / "edits", [(32, 32)] * 3, targets=False)
    with pytest.raises(EditLoopError, match="3 rows have no target, 'row-0' first"):
        fine_tune(edits, tmp_path / "out", editor="tiny-editor", settings=read_sft_preset("smallest"), facts={})
    with pytest.raises(EditLoopError, match="nowhere"):
        fine_tune(
            edits_folder(tmp_path / "good", [(32, 32)] * 3),
            tmp_path / "out",
            editor="nowhere",
            settings=read_sft_preset("smallest"),
            facts={},
        )
    assert not (tmp_path / "out").exists()
