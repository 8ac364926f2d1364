"""Supervised fine-tuning of an editor by flow matching: one rank of a DeepSpeed job.

torchrun --nproc-per-node 2 -m editloop.training.editor_sft.train job.json
"""

import sys
from pathlib import Path

import numpy as np
import torch
import torch.distributed as distributed
from safetensors.torch import load_file

from editloop.content import write_json
from editloop.data.edits_file import read_edits
from editloop.models.editors.opening import open_editor
from editloop.training.distributed import end_rank, rank_on_machine, ranks_on_machine, start_rank
from editloop.training.editor_opening import encoding_dtype, frozen_dtype, open_encoding_store, open_to_train
from editloop.training.editor_sft.settings import SftJob
from editloop.training.editor_sft.training_task import EditTrainingTask, split_rows
from editloop.training.engine import put_state, spread_of, uses_bf16
from editloop.training.loop import train
from editloop.training.schedule import TrainingSchedule
from editloop.training.settings import TrainingSettings
from editloop.training.training_task import Split


def units_read(task: EditTrainingTask, training: TrainingSettings) -> dict[Split, list[int]]:
    """Return the units of each split that a training reads, sorted: without those that its steps do not reach.

    Args:
        task: The editor and its edits.
        training: The training's settings.
    """
    schedule = TrainingSchedule.of(training, task.count("train"), distributed.get_world_size())
    units = list(range(schedule.units))
    if schedule.total <= schedule.epoch:
        units = np.unique([schedule.units_of(step, training.seed) for step in range(schedule.total)]).tolist()
    return {"train": units, "validation": list(range(task.count("validation")))}


def main(job: SftJob) -> None:
    """Train on this rank. Rank 0 writes the editor, its adapter merged, and the history.

    Args:
        job: The training to run.

    Raises:
        EditLoopError: The editor or its edits cannot be used, or a loss is not finite.
        SystemExit: The job was asked to stop and has saved a checkpoint.
    """
    start_rank()
    settings, training = job.settings, job.settings.training
    bf16 = uses_bf16(training)
    whole_dtype = torch.bfloat16 if bf16 else torch.float32  # the engine has fp32 masters
    spread = spread_of(training)
    editor, trained = open_to_train(
        job.editor, training, settings, whole_dtype=whole_dtype, bf16=bf16, with_base=False, spread=spread
    )
    splits = split_rows(read_edits(job.edits), settings.held_out)
    store = open_encoding_store(job.checkpoints, job.editor, job.facts, training, settings)
    task = EditTrainingTask(editor, splits, settings, trained, store, encoding_dtype(training))
    task.encode(units_read(task, training), rank=rank_on_machine(), ranks=ranks_on_machine())
    distributed.barrier()  # what other ranks encode is there
    finished = train(task, training, job.checkpoints, facts=job.facts)
    if distributed.get_rank() == 0:
        if spread:  # it is written from main memory, where it is whole
            editor = open_editor(job.editor, device="cpu", dtype=whole_dtype, encoder_dtype=frozen_dtype(training))
        put_state(editor.network, load_file(finished.state))
        editor.save(job.output / "editor")
        write_json(job.output / "training.json", finished.history)
        write_json(job.output / "evaluations.json", finished.history["evaluations"])
    end_rank()


if __name__ == "__main__":
    main(SftJob.model_validate_json(Path(sys.argv[1]).read_text()))
