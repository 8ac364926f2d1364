"""The tiny editor is the real pipeline: our sampling equals its own call, and its adapter does what it says."""

import numpy as np
import pytest
import torch
from PIL import Image

from editloop.errors import EditLoopError
from editloop.models.editors import sampling
from editloop.models.editors.codec import FORMER_MODULE
from editloop.models.editors.opening import open_editor
from editloop.models.editors.sampling import edit, integrate
from editloop.studies.tiny_models.editor import settings
from editloop.studies.world.scenes import random_edit

pytestmark = pytest.mark.floats


@pytest.fixture(scope="module")
def tasks():
    rng = np.random.default_rng(0)
    return [random_edit(rng) for _ in range(4)]


@pytest.fixture
def editor():
    torch.set_num_threads(1)
    return open_editor("tiny-editor")


def encoded(editor, tasks):
    return editor.encode([task.instruction for task in tasks], np.stack([task.source for task in tasks]))


def test_sampling_equals_the_pipelines_own_call(editor, tasks):
    noise = editor.noise(1, (32, 32), torch.Generator().manual_seed(3))
    ours = editor.decode(integrate(editor, noise, encoded(editor, tasks[:1]), editor.sigmas(8, (32, 32))), (32, 32))[0]
    theirs = editor.pipeline(
        image=Image.fromarray(tasks[0].source),
        prompt=tasks[0].instruction,
        num_inference_steps=8,
        height=32,
        width=32,
        guidance_scale=1.0,
        max_sequence_length=12,
        latents=noise,
        max_area=1024,
        _auto_resize=False,
    ).images[0]
    assert np.abs(ours.astype(int) - np.asarray(theirs).astype(int)).max() <= 1


def test_its_settings_are_those_that_its_weights_were_trained_with(editor):
    assert editor.settings == settings()


def test_an_editor_saved_before_the_package_was_named_opens(editor, tasks, tmp_path):
    """Its model_index.json names the codec's module as it was then."""
    editor.pipeline.save_pretrained(tmp_path)
    index = (tmp_path / "model_index.json").read_text()
    assert "editloop.models.editors.codec" in index
    (tmp_path / "model_index.json").write_text(index.replace("editloop.models.editors.codec", FORMER_MODULE))
    earlier = open_editor(tmp_path, settings=editor.settings)
    source = np.stack([tasks[0].source])
    assert torch.equal(earlier.latents(source), editor.latents(source))


def test_batches_in_work_on_two_cores_give_the_same_edits_in_the_tasks_order(editor, tasks, monkeypatch):
    monkeypatch.setattr(sampling, "BATCH", 1)
    arguments = ([task.instruction for task in tasks], [task.source for task in tasks])
    one_by_one = edit(editor, *arguments, seeds=[1, 2, 3, 4], steps=2)
    torch.set_num_threads(2)
    side_by_side = edit(editor, *arguments, seeds=[1, 2, 3, 4], steps=2)
    assert torch.get_num_threads() == 2
    assert np.abs(np.stack(side_by_side).astype(int) - np.stack(one_by_one)).max() <= 1


def test_an_edit_depends_on_its_seed_not_on_its_batch(editor, tasks):
    instructions, sources = [task.instruction for task in tasks], np.stack([task.source for task in tasks])
    together = edit(editor, instructions, sources, seeds=[5, 6, 7, 8], steps=4)
    alone = edit(editor, instructions[2:3], sources[2:3], seeds=[7], steps=4)
    assert np.abs(together[2].astype(int) - alone[0].astype(int)).max() <= 1


def test_a_task_that_comes_again_in_a_batch_is_encoded_once(editor, tasks, monkeypatch):
    instructions, sources = [task.instruction for task in tasks], [task.source for task in tasks]
    order, encoded, encode = [0, 1, 0, 2, 1, 0], [], editor.encode
    alone = [
        edit(editor, instructions[at : at + 1], sources[at : at + 1], seeds=[seed])[0] for seed, at in enumerate(order)
    ]
    monkeypatch.setattr(
        editor, "encode", lambda texts, pictures: encoded.append(list(texts)) or encode(texts, pictures)
    )
    together = edit(editor, [instructions[at] for at in order], [sources[at] for at in order], seeds=range(6))
    assert encoded == [instructions[:3]]
    for one, other in zip(alone, together, strict=True):
        assert np.abs(one.astype(int) - other.astype(int)).max() <= 1
    encoded.clear()
    edit(editor, ["remove it", "remove it"], sources[:2], seeds=[0, 1], steps=1)
    assert encoded == [["remove it", "remove it"]], "one instruction of two sources is two tasks"


def test_the_codec_keeps_a_right_result_right(editor, tasks):
    from editloop.evaluation.oracle import oracle

    sources, targets = (np.stack([getattr(task, role) for task in tasks]) for role in ("source", "target"))
    assert oracle(sources, targets, editor.decode(editor.latents(targets), (32, 32))).right.all()


def test_a_new_adapter_changes_nothing_and_the_base_stays_within_reach(editor, tasks, tmp_path):
    condition, x = encoded(editor, tasks), editor.noise(4, (32, 32), torch.Generator().manual_seed(1))
    sigma = torch.full((4,), 0.5)
    with torch.no_grad():
        before = editor.velocity(x, sigma, condition)
        trainable = editor.add_adapter(4, 8)
        torch.testing.assert_close(editor.velocity(x, sigma, condition), before)
        for parameter in trainable:
            parameter.add_(0.02)
        moved = editor.velocity(x, sigma, condition)
        assert (moved - before).abs().max() > 1e-3
        with editor.base():
            torch.testing.assert_close(editor.velocity(x, sigma, condition), before)
    editor.save(tmp_path / "editor")
    with torch.no_grad():
        torch.testing.assert_close(
            open_editor(tmp_path / "editor").velocity(x, sigma, condition), moved, atol=1e-4, rtol=1e-4
        )


def test_an_unknown_editor_is_named(tmp_path):
    with pytest.raises(EditLoopError, match="no-such-editor"):
        open_editor("no-such-editor")
