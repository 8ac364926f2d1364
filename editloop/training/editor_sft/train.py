"""Supervised fine-tuning of an editor by flow matching: one rank of a DeepSpeed job.

torchrun --nproc-per-node 2 -m editloop.training.editor_sft.train job.json
"""

import sys
from pathlib import Path

import torch
from torch import nn

from editloop.data.edits_file import read_edits
from editloop.models.editors.protocol import Editor
from editloop.training.distributed import end_rank, start_rank
from editloop.training.editor_sft.settings import SftJob
from editloop.training.editor_sft.training_task import EditTrainingTask, split_rows
from editloop.training.encoding_store import EncodingStore
from editloop.training.flow_training import train_by_flow_matching


def main(job: SftJob) -> None:
    """Train on this rank. Rank 0 writes the editor, its adapter merged, and the history.

    Args:
        job: The training to run.

    Raises:
        EditLoopError: The editor or its edits cannot be used, or a loss is not finite.
        SystemExit: The job was asked to stop and has saved a checkpoint.
    """

    def open_task(
        editor: Editor, trained: list[nn.Parameter], store: EncodingStore, dtype: torch.dtype | None
    ) -> EditTrainingTask:
        splits = split_rows(read_edits(job.edits), job.settings.held_out)
        return EditTrainingTask(editor, splits, job.settings, trained, store, dtype)

    start_rank()
    train_by_flow_matching(job, job.settings, open_task, with_base=False)
    end_rank()


if __name__ == "__main__":
    main(SftJob.model_validate_json(Path(sys.argv[1]).read_text()))
