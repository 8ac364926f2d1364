"""Supervised fine-tuning of an editor by flow matching: one rank of a DeepSpeed job.

torchrun --nproc-per-node 2 -m editloop.training.editor_sft.train job.json
"""

import sys
from pathlib import Path

import torch
import torch.distributed as distributed
from safetensors.torch import load_file

from editloop.content import write_json
from editloop.data.edits_file import read_edits
from editloop.training.distributed import end_rank, start_rank
from editloop.training.editor_opening import open_to_train
from editloop.training.editor_sft.settings import SftJob
from editloop.training.editor_sft.training_task import EditTrainingTask, split_rows
from editloop.training.engine import put_state, uses_bf16
from editloop.training.loop import train


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
    editor, trained = open_to_train(job.editor, training, settings, whole_dtype=whole_dtype, bf16=bf16)
    task = EditTrainingTask(editor, split_rows(read_edits(job.edits), settings.held_out), settings, trained)
    finished = train(task, training, job.checkpoints, facts=job.facts)
    if distributed.get_rank() == 0:
        put_state(editor.network, load_file(finished.state))
        editor.save(job.output / "editor")
        write_json(job.output / "training.json", finished.history)
        write_json(job.output / "evaluations.json", finished.history["evaluations"])
    end_rank()


if __name__ == "__main__":
    main(SftJob.model_validate_json(Path(sys.argv[1]).read_text()))
