"""Where models and ranks go on a machine with GPUs, and in what type: asked on one without."""

from pathlib import Path
from typing import Any

import deepspeed
import numpy as np
import pytest
import torch
from diffusers import FluxKontextPipeline

from editloop.content import complete_folder
from editloop.errors import EditLoopError
from editloop.models.backbones.placement import check_model_folder, placement
from editloop.models.edit_reward.model import RewardModel
from editloop.models.editors.opening import open_editor
from editloop.models.judge_protocol import EditGroup
from editloop.models.lora_settings import LoraSettings
from editloop.selection.pool import CandidatePool
from editloop.selection.propose import load_reward, own_scores
from editloop.training import distributed as ranks
from editloop.training.editor_rl import train as rl
from editloop.training.editor_rl.settings import RlSettings
from tests.tiny_editors import build_tiny_editor


def test_a_rank_takes_its_own_gpu_before_it_meets_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", lambda index: calls.append(index))
    monkeypatch.setattr(deepspeed, "init_distributed", lambda dist_backend, verbose: calls.append(dist_backend))
    ranks.start_rank()
    assert calls == [3, "nccl"]


def test_an_editor_goes_to_the_gpu_in_bfloat16_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    moves: list[Any] = []
    monkeypatch.setattr(FluxKontextPipeline, "to", lambda self, device: moves.append(str(device)) or self)
    assert dtypes(open_editor("tiny-editor").pipeline) == {torch.float32}
    assert dtypes(open_editor("tiny-editor", device="cuda:1", dtype=torch.float32).pipeline) == {torch.float32}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert dtypes(open_editor("tiny-editor").pipeline) == {torch.bfloat16}
    assert moves == ["cpu", "cuda:1", "cuda"]


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


def test_frozen_weights_take_half_the_memory_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    exact, coarse = RlSettings(precision="fp32"), RlSettings(precision="bf16")
    full = RlSettings(precision="bf16", adapter=None)
    assert {rl.weights_dtype(settings) for settings in (exact, coarse, full)} == {torch.float32}
    monkeypatch.setattr(rl, "device", lambda: torch.device("cuda", 0))
    assert [rl.weights_dtype(settings) for settings in (exact, coarse, full)] == [
        torch.float32,
        torch.bfloat16,
        torch.float32,
    ]


def test_an_adapter_beside_bfloat16_weights_is_trained_in_float32() -> None:
    editor = build_tiny_editor("kontext")
    editor.pipeline.to(torch.bfloat16)
    trained = rl.prepare_to_train(editor, RlSettings(precision="bf16", adapter=LoraSettings(rank=4, alpha=8)))
    assert {weight.dtype for weight in trained} == {torch.float32}
    assert {weight.dtype for weight in editor.network.parameters() if not weight.requires_grad} == {torch.bfloat16}
    assert editor.network.dtype == torch.bfloat16
    assert editor.bf16


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
