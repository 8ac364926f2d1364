"""Where models and ranks go on a machine with GPUs, and in what type: asked on one without."""

from pathlib import Path
from typing import Any

import deepspeed
import numpy as np
import pytest
import torch

from editloop.content import complete_folder
from editloop.errors import EditLoopError
from editloop.models.backbones.placement import check_model_folder, placement
from editloop.models.edit_reward.model import RewardModel
from editloop.models.editors import opening
from editloop.models.editors.opening import open_editor
from editloop.models.judge_protocol import EditGroup
from editloop.models.lora_settings import LoraSettings
from editloop.selection.pool import CandidatePool
from editloop.selection.propose import load_reward, own_scores
from editloop.training import distributed as ranks
from editloop.training import editor_opening
from editloop.training.editor_rl.settings import RlSettings
from editloop.training.editor_rl.train import open_rl_editor
from tests.tiny_editors import KINDS, write_tiny_editor


def test_a_rank_takes_its_own_gpu_before_it_meets_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", lambda index: calls.append(index))
    monkeypatch.setattr(deepspeed, "init_distributed", lambda dist_backend, verbose: calls.append(dist_backend))
    ranks.start_rank()
    assert calls == [3, "nccl"]


def test_an_editor_goes_to_the_gpu_in_bfloat16_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    devices: set[str] = set()
    read, move = opening._read_part, torch.nn.Module.to

    def read_here(kind: Any, name: str, dtype: torch.dtype, device: torch.device) -> torch.nn.Module:
        devices.add(str(device))
        return read(kind, name, dtype, torch.device("cpu"))

    def stay_here(module: torch.nn.Module, device: torch.device, *dtype: Any) -> torch.nn.Module:
        devices.add(str(device))
        return move(module, *dtype) if dtype else module

    monkeypatch.setattr(opening, "_read_part", read_here)
    monkeypatch.setattr(torch.nn.Module, "to", stay_here)
    assert dtypes(open_editor("tiny-editor").pipeline) == {torch.float32}
    assert dtypes(open_editor("tiny-editor", device="cuda:1", dtype=torch.float32).pipeline) == {torch.float32}
    assert devices == {"cpu", "cuda:1"}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    devices.clear()
    assert dtypes(open_editor("tiny-editor").pipeline) == {torch.bfloat16}
    assert devices == {"cuda"}


def dtypes(pipeline: Any) -> set[torch.dtype]:
    """Of all weights of a pipeline's four networks."""
    parts = [part for part in pipeline.components.values() if isinstance(part, torch.nn.Module)]
    assert len(parts) == 4
    return {weight.dtype for part in parts for weight in part.parameters()}


def test_what_is_used_goes_to_the_gpu_too(monkeypatch: pytest.MonkeyPatch) -> None:
    assert placement() == (torch.device("cpu"), torch.float32)
    assert placement("cuda:1") == (torch.device("cuda:1"), torch.bfloat16)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert placement() == (torch.device("cuda"), torch.bfloat16)
    assert placement("cpu", torch.bfloat16) == (torch.device("cpu"), torch.bfloat16)
    loads: list[Any] = []
    monkeypatch.setattr(RewardModel, "load", lambda *arguments: loads.append(arguments))
    load_reward("tiny-reward")
    assert loads == [("tiny-reward", torch.device("cuda"), torch.bfloat16)]


def test_states_of_a_bfloat16_model_are_float32() -> None:
    """What asks about them is numpy, which knows no bfloat16."""
    model = RewardModel.load("tiny-reward", dtype=torch.bfloat16)
    picture = np.zeros((32, 32, 3), np.uint8)
    [states] = model.states([EditGroup("make it red", picture, [picture, picture])])
    assert states.dtype == torch.float32
    pool = CandidatePool([], [states])
    assert pool.features().shape == (1, states[0].numel())
    [(mu, log_sigma)] = own_scores(pool, model)
    assert mu.shape == log_sigma.shape == (1, 2, 2)


@pytest.mark.parametrize(
    ("precision", "on_a_gpu", "on_a_cpu"),
    [
        ("fp32", torch.float32, torch.float32),
        ("auto", torch.bfloat16, torch.float32),
        ("bf16", torch.bfloat16, torch.bfloat16),
    ],
)
def test_frozen_weights_take_half_the_memory_where_the_network_computes_in_bfloat16(
    monkeypatch: pytest.MonkeyPatch, precision: Any, on_a_gpu: torch.dtype, on_a_cpu: torch.dtype
) -> None:
    opened: list[dict[str, Any]] = []
    monkeypatch.setattr(editor_opening, "open_editor", lambda address, **options: opened.append(options))
    monkeypatch.setattr(editor_opening, "prepare_to_train", lambda *_, **__: [])
    for adapter in (LoraSettings(), None):
        open_rl_editor("editor", RlSettings(precision=precision, adapter=adapter))
    monkeypatch.setattr(editor_opening, "device", lambda: torch.device("cuda", 0))
    open_rl_editor("editor", RlSettings(precision=precision))
    open_rl_editor("editor", RlSettings(precision=precision, encoders="resident"))
    types = [(options["dtype"], options["encoder_dtype"], options["on_demand"]) for options in opened]
    assert types == [
        (on_a_cpu, on_a_cpu, False),
        (torch.float32, on_a_cpu, False),
        (on_a_gpu, on_a_gpu, True),
        (on_a_gpu, on_a_gpu, False),
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_beside_bfloat16_weights_is_trained_in_float32(tmp_path: Path, kind: str) -> None:
    folder = write_tiny_editor(kind, tmp_path / kind)
    editor, trained = open_rl_editor(str(folder), RlSettings(precision="bf16", adapter=LoraSettings(rank=4, alpha=8)))
    assert {weight.dtype for weight in trained} == {torch.float32}
    assert {weight.dtype for weight in editor.network.parameters() if not weight.requires_grad} == {torch.bfloat16}
    assert editor.network.dtype == torch.bfloat16
    assert editor.bf16
    condition = editor.encode(["make it red"], np.zeros((1, 32, 32, 3), np.uint8))
    x = editor.noise(1, (32, 32), torch.Generator().manual_seed(0))
    editor.velocity(x, torch.ones(1), condition).square().mean().backward()
    optimiser = torch.optim.AdamW(trained)
    optimiser.step()
    moments = [value for state in optimiser.state.values() for value in state.values() if value.ndim]
    assert {value.dtype for value in moments} == {torch.float32}


def test_one_rank_of_a_machine_checks_a_models_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with complete_folder(tmp_path / "model") as folder:
        (folder / "weights").write_text("as written")
    (tmp_path / "model" / "weights").write_text("changed")
    monkeypatch.setenv("LOCAL_RANK", "1")
    check_model_folder(tmp_path / "model")
    monkeypatch.setenv("LOCAL_RANK", "0")
    with pytest.raises(EditLoopError, match="changed since it was written: weights"):
        check_model_folder(tmp_path / "model")
    monkeypatch.delenv("LOCAL_RANK")
    with pytest.raises(EditLoopError, match="changed since it was written: weights"):
        check_model_folder(tmp_path / "model")
