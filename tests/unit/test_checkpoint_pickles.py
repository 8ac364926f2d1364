"""A checkpoint from a bucket that others write to: its pickles run nothing, whatever its manifest says."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from deepspeed.runtime.checkpoint_engine.torch_checkpoint_engine import TorchCheckpointEngine
from deepspeed.runtime.fp16.loss_scaler import LossScaler
from deepspeed.runtime.zero.config import ZeroStageEnum
from deepspeed.utils.tensor_fragment import fragment_address

from editloop.content import complete_folder, write_json
from editloop.errors import EditLoopError
from editloop.training import checkpoint
from editloop.training.checkpoint import ENGINE, PROGRESS, SavedCheckpoint
from editloop.training.checkpoint_pickles import restricted_pickles

STATES = "mp_rank_00_model_states.pt"


class Bomb:
    """Makes a file where it is unpickled."""

    def __init__(self, planted: Path):
        self.planted = planted

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.planted),)


def read(path: Path) -> Any:
    """What DeepSpeed reads in a file of its own."""
    return TorchCheckpointEngine(None).load(str(path), map_location="cpu")


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A checkpoint with a manifest that is right for it."""
    with complete_folder(tmp_path / "step-00000007", {"identity": "x", "step": 7, "ranks": 1, "zero_stage": 1}) as out:
        (out / ENGINE).mkdir()
        torch.save({"module": {"weight": torch.ones(2)}, "more": Bomb(tmp_path / "planted")}, out / ENGINE / STATES)
        write_json(out / PROGRESS, {"step": 7, "history": {}})
    return tmp_path / "step-00000007"


def test_the_attack_is_one_and_the_restricted_reader_refuses_it(hostile: Path, tmp_path: Path) -> None:
    refused = pytest.raises(EditLoopError, match=r"more than a training's state \(posix\.mkdir\); it was not run")
    with refused, restricted_pickles(hostile):
        read(hostile / ENGINE / STATES)
    assert not (tmp_path / "planted").exists()
    read(hostile / ENGINE / STATES)
    assert (tmp_path / "planted").exists(), "without the guard it runs"


def test_a_training_does_not_go_on_there(hostile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint.distributed, "barrier", lambda: None)
    module = torch.nn.Linear(2, 1)
    engine = SimpleNamespace(
        module=module, load_checkpoint=lambda folder, tag, **_: (read(Path(folder) / tag / STATES), None)
    )
    with pytest.raises(EditLoopError, match="it was not run"):
        checkpoint.load(engine, SavedCheckpoint(hostile, 7, as_universal=False))
    assert not (tmp_path / "planted").exists()


def test_nor_does_a_job_of_another_size(hostile: Path, tmp_path: Path) -> None:
    """It converts the checkpoint in a process of its own."""
    torch.save(
        {"optimizer_state_dict": Bomb(tmp_path / "planted")}, hostile / ENGINE / "zero_pp_rank_0_optim_states.pt"
    )
    with pytest.raises(EditLoopError, match=r"cannot be read by a job of another size.*it was not run"):
        checkpoint._write_universal(hostile, tmp_path / "universal")
    assert not (tmp_path / "planted").exists()


def test_what_deepspeed_writes_is_read(tmp_path: Path) -> None:
    state = {
        "loss_scaler": LossScaler(2.0),
        "slices": [{"weight": fragment_address(numel=4, start=1)}],
        "stage": ZeroStageEnum(2),
        "tensors": {"weight": torch.arange(4.0)},
    }
    torch.save(state, tmp_path / STATES)
    with restricted_pickles(tmp_path):
        loaded = read(tmp_path / STATES)
    assert loaded["loss_scaler"].loss_scale == 2.0
    assert loaded["slices"] == state["slices"]
    assert loaded["stage"] is ZeroStageEnum(2)
    assert torch.equal(loaded["tensors"]["weight"], torch.arange(4.0))


@pytest.mark.parametrize("text", ["", "[]", "17", '{"step": {}, "history": 3}', '{"step": 7'])
def test_a_damaged_progress_is_one_line(
    text: str, hostile: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(checkpoint.distributed, "barrier", lambda: None)
    (hostile / PROGRESS).write_text(text)
    engine = SimpleNamespace(module=torch.nn.Linear(2, 1), load_checkpoint=lambda *_, **__: ("there", None))
    with pytest.raises(EditLoopError, match=r"progress\.json: .*Delete this checkpoint") as caught:
        checkpoint.load(engine, SavedCheckpoint(hostile, 7, as_universal=False))
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("facts", [{}, {"identity": "x"}, {"identity": "x", "step": [], "ranks": 1, "zero_stage": 1}])
def test_a_manifest_of_other_facts_is_one_line(facts: dict[str, Any], tmp_path: Path) -> None:
    with complete_folder(tmp_path / "step-00000007", facts) as out:
        (out / PROGRESS).write_text("{}")
    with pytest.raises(EditLoopError, match=r"manifest\.json: its facts are not those of a checkpoint"):
        checkpoint._newest(tmp_path, 1, "x")
