"""Learning from pairs: the loss by hand, the frozen reference, which pairs count in which order, what is refused."""

import json
import math
from pathlib import Path

import pytest
import torch
from PIL import Image

from components.editor_dpo.declaration import EditorDpoParameters
from components.editor_dpo.stage import learn_from_pairs, run_editor_dpo
from editloop.content import read_manifest
from editloop.datasets.preference_groups import read_groups
from editloop.errors import EditLoopError
from editloop.models.editors.opening import open_editor
from editloop.settings_file import preset_names
from editloop.training.distributed import step_seed
from editloop.training.editor_dpo.page import dpo_page
from editloop.training.editor_dpo.pair_loss import dpo_loss, implicit_margin, ordered_share
from editloop.training.editor_dpo.pairs import PairCounts, read_ordered_pairs, sample_pairs
from editloop.training.editor_dpo.settings import PRESETS, DpoSettings, read_dpo_preset
from editloop.training.editor_dpo.train import write_sheet
from editloop.training.editor_dpo.training_task import PairTrainingTask
from editloop.training.encoding_store import EncodingStore
from editloop.training.flow_matching import flow_matching_loss, noised
from editloop.training.flow_training import unit_generators
from tests.pair_datasets import ORDERS, write_pairs

pytestmark = pytest.mark.floats


def settings(**changes: object) -> DpoSettings:
    return DpoSettings.model_validate({"training": {"steps": 2, "learning_rate": 1e-3}, "beta": 100.0, **changes})


def open_task(folder: Path, dataset: Path, **changes: object) -> PairTrainingTask:
    """The tiny editor with an adapter that has learnt something, and pairs that are all encoded."""
    editor = open_editor("tiny-editor")
    torch.manual_seed(0)
    trained = editor.add_adapter(4, 8)
    with torch.no_grad():
        for parameter in trained:
            parameter += 0.05 * torch.randn_like(parameter)
    store = EncodingStore(folder / "encodings", most_bytes=0)
    task = PairTrainingTask(editor, dataset, settings(**changes), trained, store)
    units = {split: range(task.count(split)) for split in ("train", "validation")}
    for rank in range(2):
        task.encode(units, rank=rank, ranks=2)
    return task


def test_the_loss_of_a_pair_by_hand() -> None:
    errors = [torch.tensor([one]) for one in (0.5, 0.7, 0.4, 0.3)]
    margin = implicit_margin(*errors, beta=10.0)
    assert margin.item() == pytest.approx(1.5)  # -5 ((0.5 - 0.7) - (0.4 - 0.3))
    assert dpo_loss(margin).item() == pytest.approx(0.2014133)  # ln(1 + e^-1.5)
    assert dpo_loss(torch.zeros(1)).item() == pytest.approx(math.log(2))
    assert ordered_share(torch.tensor([0.2, -0.1, 0.0])).tolist() == [1.0, 0.0, 0.5]


def test_the_gradient_lowers_the_error_of_the_preferred_edit_and_raises_that_of_the_rejected() -> None:
    preferred, rejected = (torch.tensor([value], requires_grad=True) for value in (0.5, 0.4))
    base = torch.tensor([0.45])
    margin = implicit_margin(preferred, base, rejected, base, beta=20.0)
    dpo_loss(margin).sum().backward()
    slope = 10 / (1 + math.exp(margin.item()))  # beta / 2 sigmoid(-margin)
    assert preferred.grad is not None
    assert rejected.grad is not None
    assert preferred.grad.item() == pytest.approx(slope)
    assert rejected.grad.item() == pytest.approx(-slope)


def test_pairs_come_in_the_experts_order_and_ties_are_counted(tmp_path: Path) -> None:
    dataset = write_pairs(tmp_path / "dataset", tasks=1)
    pairs, counts = read_ordered_pairs(dataset, "train")
    assert [(pair.task, pair.preferred, pair.rejected) for pair in pairs] == [
        ("train-0", "a", "b"),
        ("train-0", "c", "b"),
    ]
    assert counts == PairCounts(ordered=2, ties=1, uncertain=0)
    sure, counts = read_ordered_pairs(dataset, "train", least_confidence=0.8)
    assert sure == pairs[:1]
    assert counts == PairCounts(ordered=1, ties=1, uncertain=1)
    many = pairs * 10
    assert sample_pairs(many, 5) == sample_pairs(many, 5)
    assert len(sample_pairs(many, 5)) == 5
    assert sample_pairs(pairs, 5) == pairs


def test_the_loss_of_a_batch_by_another_way_where_the_reference_is_an_untrained_editor(tmp_path: Path) -> None:
    dataset = write_pairs(tmp_path / "dataset")
    task, untrained = open_task(tmp_path, dataset, sft_weight=0.5), open_editor("tiny-editor")
    torch.manual_seed(20_014)
    assert step_seed() == 2
    loss = task.loss(None, task.batch("train", [1, 4]))
    by_hand = []
    for unit in (1, 4):
        pair = task.pairs["train"][unit]
        (group,) = (group for group in read_groups(dataset, "train") if group.task_id == pair.task)
        edits = [group.edits[group.candidates.index(edit)] for edit in (pair.preferred, pair.rejected)]
        condition = untrained.encode([group.instruction], group.source[None])
        (generator,) = unit_generators(2, [unit])
        sigma = torch.rand(1, generator=generator)
        noise = untrained.noise(1, (32, 32), generator)
        errors = []
        for edit in edits:
            picture = untrained.latents(edit[None])
            for editor in (task.editor, untrained):
                velocity = editor.velocity(noised(picture, noise, sigma), sigma, condition, 1.0)
                errors.append(flow_matching_loss(velocity, picture, noise))
        margin = -50 * ((errors[0] - errors[1]) - (errors[2] - errors[3]))
        by_hand.append(torch.log1p(torch.exp(-margin)) + 0.5 * errors[0])
    assert abs(errors[0] - errors[1]).item() > 1e-4, "the adapter changes something"
    assert loss.item() == pytest.approx(torch.cat(by_hand).mean().item(), rel=1e-4)


def test_a_step_along_the_gradient_orders_the_pair_as_the_experts_do(tmp_path: Path) -> None:
    task = open_task(tmp_path, write_pairs(tmp_path / "dataset"))
    batch = task.batch("train", [0])
    torch.manual_seed(20_014)
    before = task.loss(None, batch)
    before.backward()
    assert all(parameter.grad is not None for parameter in task.trained), "the base leaves the adapter trainable"
    norm = torch.stack([parameter.grad.square().sum() for parameter in task.trained]).sum().sqrt()
    with torch.no_grad():
        for parameter in task.trained:
            parameter -= 0.01 * parameter.grad / norm
    torch.manual_seed(20_014)
    assert task.loss(None, batch).item() < before.item()


def test_a_gradient_is_that_of_its_pairs_however_passes_share_them(tmp_path: Path) -> None:
    """So a training that was stopped, or that other ranks continue, makes the same steps."""
    task = open_task(tmp_path, write_pairs(tmp_path / "dataset"))
    losses = []
    for parts in ([[0, 3, 5]], [[5], [0, 3]]):
        torch.manual_seed(20_014)
        batches = [task.batch("train", part) for part in parts]
        losses.append(sum(task.loss(None, batch).item() * batch.weight for batch in batches) / 3)
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_figures_are_of_held_out_pairs_and_beside_them_of_the_trainings(tmp_path: Path) -> None:
    task = open_task(tmp_path, write_pairs(tmp_path / "dataset"), evaluation_pairs=4)
    assert (task.held_out, task.count("validation"), task.count("train")) == (4, 8, 6)
    assert [pair.split for pair in task.pairs["validation"]] == ["validation"] * 4 + ["train"] * 4
    with torch.no_grad():
        everything, *sums = (
            {name: float(value) for name, value in task.measure(None, task.batch("validation", part)).items()}
            for part in (range(8), [7, 0], [5, 1, 2], [3, 4, 6], range(4), range(4, 8))
        )
    *shared, held_out, training = sums
    assert (held_out["pairs"], held_out["pairs_train"], training["pairs"], training["pairs_train"]) == (4, 0, 0, 4)
    for name, value in everything.items():
        assert value == pytest.approx(sum(one[name] for one in shared), rel=1e-4)
        assert value == pytest.approx(training[name] if name.endswith("_train") else held_out[name], rel=1e-4)
    names = {"loss", "accuracy", "margin", "distance", "preferred_change", "rejected_change"}
    everything = task.figures(everything)
    assert everything.keys() == names | {f"{name}_train" for name in names}
    assert everything["loss_train"] == pytest.approx(training["loss_train"] / 4, rel=1e-4)
    assert everything["margin"] != pytest.approx(everything["margin_train"])
    with torch.no_grad():
        one = {name: float(value) for name, value in task.measure(None, task.batch("validation", [2])).items()}
    assert one["loss"] == pytest.approx(math.log1p(math.exp(-one["margin"])), rel=1e-5), "of the margin's mean"
    change = everything["preferred_change"] - everything["rejected_change"]
    assert everything["margin"] == pytest.approx(-50 * change, rel=1e-3)
    with torch.no_grad():
        for parameter in task.trained:
            parameter.zero_()
        unchanged = task.measure(None, task.batch("validation", [0, 5]))
    base = task.figures({name: float(value) for name, value in unchanged.items()})
    assert base["distance"] == base["margin"] == 0
    assert base["accuracy"] == 0.5
    assert base["loss"] == pytest.approx(math.log(2))


def test_the_sheet_and_the_page_show_the_pairs_and_both_editors(tmp_path: Path) -> None:
    task = open_task(tmp_path, write_pairs(tmp_path / "dataset"), sheet_tasks=2, sheet_steps=1)
    sheet = tmp_path / "sheet.png"
    write_sheet(sheet, task.editor, task)
    assert Image.open(sheet).width > 5 * 168
    names = ("loss", "accuracy", "margin", "distance", "preferred_change", "rejected_change")
    figures = {f"{name}{end}": 0.25 for name in names for end in ("", "_train")}
    history = {
        "steps": [{"step": 1, "loss": 0.6, "learning_rate": 0.1}],
        "evaluations": [{"step": 0, **figures, "loss": 0.7}, {"step": 1, **figures, "accuracy": 0.75}],
    }
    page = dpo_page(history, {"editor": "tiny", "ties": 3, "dataset": {"tag": "t"}}, sheet)
    for text in ("from 0.7000 to 0.2500", "75 %", "25 %", "data:image/png", "less likely too", "<code>3</code>"):
        assert text in page
    assert "data:image/png" not in dpo_page(history, {"editor": "tiny"}, tmp_path / "none.png")


def test_every_preset_loads_and_what_cannot_be_is_refused() -> None:
    for name in preset_names(PRESETS):
        chosen = read_dpo_preset(name)
        assert chosen.changed(steps=7, learning_rate=0.5, seed=3).training.model_dump() == {
            **chosen.training.model_dump(),
            "steps": 7,
            "epochs": None,
            "seed": 3,
            "learning_rate": 0.5,
        }
    for word, wrong in {
        "zero_stage 3: every step also asks the frozen base": {
            "training": {"steps": 1, "learning_rate": 1, "zero_stage": 3}
        },
        "targets": {"targets": ["to_q"]},
        "least_confidence": {"least_confidence": 0.4},
        "beta": {"beta": 0},
    }.items():
        with pytest.raises(ValueError, match=word):
            settings(**wrong)
    with pytest.raises(EditLoopError, match=r"preset 'none': no such file or name; there are "):
        read_dpo_preset("none")


def test_what_cannot_be_learnt_is_refused_in_one_line_before_anything_starts(tmp_path: Path) -> None:
    smallest = read_dpo_preset("smallest")

    def refusal(dataset: Path, chosen: DpoSettings = smallest) -> str:
        with pytest.raises(EditLoopError) as raised:
            learn_from_pairs(dataset, tmp_path / "out", editor="tiny-editor", settings=chosen, facts={})
        assert "\n" not in str(raised.value)
        return str(raised.value)

    ties = write_pairs(tmp_path / "ties", orders=dict.fromkeys(ORDERS, 0))
    assert "split train has no ordered pair (9 ties, 0 less certain" in refusal(ties)
    good = write_pairs(tmp_path / "good")
    unsure = smallest.model_copy(update={"least_confidence": 0.95})
    assert "split train has no ordered pair (3 ties, 6 less certain" in refusal(good, unsure)
    small = write_pairs(tmp_path / "small", shapes=[(16, 16)])
    message = refusal(small)
    assert "task train-0: its edits have 16x16 pixels, and this editor works at 32x32" in message
    assert "Set `area` of the preset to about 256" in message
    shapes = [*[(32, 32)] * 20, (16, 16)]
    late = write_pairs(tmp_path / "late", tasks=21, shapes=shapes)
    assert "task train-20: its edits have 16x16 pixels" in refusal(late), "the last task's sizes are looked at too"
    other_layers = smallest.model_copy(update={"targets": ("nowhere",)})
    assert "no linear layer of the asked name: nowhere" in refusal(good, other_layers)
    assert not (tmp_path / "out").exists()


def test_an_edit_that_is_too_small_is_refused_when_it_is_encoded_too(tmp_path: Path) -> None:
    with pytest.raises(EditLoopError, match="train-0: its edits have 16x16 pixels"):
        open_task(tmp_path, write_pairs(tmp_path / "small", shapes=[(16, 16)]))


def test_a_dataset_and_the_version_of_another_are_refused(tmp_path: Path) -> None:
    dataset, version = write_pairs(tmp_path / "dataset"), tmp_path / "version.json"
    stated = {"sha256": "f" * 64, "tag": f"preferences-{'f' * 12}", "repo": "r", "dvc_rev": "c" * 40}
    version.write_text(json.dumps(stated))
    with pytest.raises(EditLoopError, match=f"its content is {read_manifest(dataset)['sha256'][:12]}, and .*ffffffff"):
        run_editor_dpo(dataset, version, tmp_path / "out", EditorDpoParameters())
