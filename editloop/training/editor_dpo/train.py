"""Training of an editor on pairs of edits, by Diffusion-DPO: one rank of a DeepSpeed job.

torchrun --nproc-per-node 2 -m editloop.training.editor_dpo.train job.json
"""

import sys
from pathlib import Path

import torch
from PIL import Image
from torch import nn

from editloop.content import write_file
from editloop.data.picture_file import png_bytes
from editloop.models.editors.candidates import noise_seed
from editloop.models.editors.protocol import Editor
from editloop.models.editors.sampling import edit, working_picture
from editloop.models.editors.sources import working_references
from editloop.pages.contact_sheet import contact_sheet
from editloop.training.distributed import end_rank, start_rank
from editloop.training.editor_dpo.page import SHEET
from editloop.training.editor_dpo.settings import DpoJob
from editloop.training.editor_dpo.training_task import PairTrainingTask
from editloop.training.encoding_store import EncodingStore
from editloop.training.flow_training import FlowTrainingTask, train_by_flow_matching


def write_sheet(path: Path, editor: Editor, task: PairTrainingTask) -> None:
    """Write a contact sheet of the first held-out tasks: both edits of a pair, and edits by the base and by the editor.

    Args:
        path: PNG file to write.
        editor: The trained editor, which has its base.
        task: The training task.
    """
    settings = task.settings
    first_pairs = {pair.task: pair for pair in reversed(task.pairs["validation"][: task.held_out])}
    pairs = list(first_pairs.values())[::-1][: settings.sheet_tasks]
    groups = [task.group(pair) for pair in pairs]
    instructions = [group.instruction for group in groups]
    sources = [working_picture(editor, Image.fromarray(group.source)) for group in groups]
    references = [working_references(editor, group.references) for group in groups]
    seeds = [noise_seed(settings.training.seed, group.task_id, 0) for group in groups]
    with editor.base():
        base = edit(editor, instructions, sources, seeds=seeds, references=references, steps=settings.sheet_steps)
    tuned = edit(editor, instructions, sources, seeds=seeds, references=references, steps=settings.sheet_steps)
    preferred, rejected = (
        [group.edits[group.candidates.index(name)] for group, name in zip(groups, names, strict=True)]
        for names in ([pair.preferred for pair in pairs], [pair.rejected for pair in pairs])
    )
    columns = {"source": sources, "preferred": preferred, "rejected": rejected, "base": base, "tuned": tuned}
    write_file(path, png_bytes(contact_sheet(instructions, columns, references=[group.references for group in groups])))


def main(job: DpoJob) -> None:
    """Train on this rank. Rank 0 writes the editor, its adapter merged, the contact sheet, and the history.

    Args:
        job: The training to run.

    Raises:
        EditLoopError: The editor or the pairs cannot be used, or a loss is not finite.
        SystemExit: The job was asked to stop and has saved a checkpoint.
    """

    def open_task(
        editor: Editor, trained: list[nn.Parameter], store: EncodingStore, dtype: torch.dtype | None
    ) -> PairTrainingTask:
        return PairTrainingTask(editor, job.dataset, job.settings, trained, store, dtype)

    def show(editor: Editor, task: FlowTrainingTask) -> None:
        if job.settings.sheet_tasks:
            assert isinstance(task, PairTrainingTask)
            write_sheet(job.output / SHEET, editor, task)

    start_rank()
    train_by_flow_matching(job, job.settings, open_task, with_base=True, show=show)
    end_rank()


if __name__ == "__main__":
    main(DpoJob.model_validate_json(Path(sys.argv[1]).read_text()))
