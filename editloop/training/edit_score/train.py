"""Train EditScore to answer as experts or a teacher do: one rank of a DeepSpeed job.

torchrun --nproc-per-node 2 -m editloop.training.edit_score.train job.json
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.distributed as distributed
from safetensors.torch import load_file

from editloop.content import complete_folder
from editloop.models.edit_score import checkpoints
from editloop.models.edit_score.adapters import write_adapter
from editloop.models.edit_score.model import EditScoreModel
from editloop.models.edit_score.settings import EditScoreSettings
from editloop.models.judge_protocol import wording_facts
from editloop.models.lora import add_adapter
from editloop.training.distributed import end_rank, start_rank
from editloop.training.edit_score.training_task import AnswerTrainingTask, read_training_edits
from editloop.training.engine import freeze_embeddings, spread_of, weight_type
from editloop.training.loop import train
from editloop.training.reward_job import TrainingJob
from editloop.training.trained_backbone import PREFIX, write_trained_backbone


def _open_base(job: TrainingJob) -> EditScoreModel:
    """Return the model that a job starts from, on the CPU where it is whole, with its adapter."""
    settings = EditScoreSettings(**job.preset.settings) if job.preset.settings else None
    model = EditScoreModel.from_base(
        job.base, settings, device="cpu", dtype=weight_type(job.training), spread=spread_of(job.training)
    )
    freeze_embeddings(model.backbone, job.training)
    if job.training.adapter:
        add_adapter(model.backbone, job.training.adapter)
    return model


def _write_model(model: EditScoreModel, state: Path, job: TrainingJob, history: dict[str, Any]) -> None:
    """Write the model folder: the trained adapter with a reference to its base, or the whole trained weights."""
    extra = dict[str, object]({"training.json": history})
    settings = model.settings.model_copy(update={"wording": "trained"})
    if job.training.adapter is None:
        base = checkpoints.weights_folder(checkpoints.base_folder(job.base))
        with complete_folder(job.output, wording_facts(settings) | job.facts) as out:
            write_trained_backbone(base, state, out / "backbone", weight_type(job.training), generates=True)
            model.backbone.generation_config.save_pretrained(out / "backbone")
            model.tokenizer.save_pretrained(out / "tokenizer")
            checkpoints.write_settings(out, settings, extra)
        return
    adapter_state = {name.removeprefix(PREFIX): value for name, value in load_file(state).items()}
    with tempfile.TemporaryDirectory() as scratch:
        write_adapter(Path(scratch) / "adapter", adapter_state, job.training.adapter, job.preset.base)
        checkpoints.save_adapter_model(job.output, Path(scratch) / "adapter", job.base, settings, job.facts, extra)


def main(job: TrainingJob) -> None:
    """Train on this rank. Rank 0 writes the model folder.

    Args:
        job: The training to run.

    Raises:
        EditLoopError: The base or the dataset cannot be used, or a loss is not finite.
        SystemExit: The job was asked to stop and has saved a checkpoint.
    """
    start_rank()
    torch.manual_seed(job.training.seed)
    model = _open_base(job)
    top = model.settings.top
    task = AnswerTrainingTask(
        model, {split: read_training_edits(job.dataset, split, top) for split in ("train", "validation")}
    )
    trained = train(task, job.training, job.checkpoints, facts=job.facts)
    if distributed.get_rank() == 0:
        _write_model(model, trained.state, job, trained.history)
    end_rank()


if __name__ == "__main__":
    main(TrainingJob.model_validate_json(Path(sys.argv[1]).read_text()))
