"""Make the edits of a benchmark, batch by batch, so that a stopped call goes on where it was.

A file an edit, at the place that the benchmark's publication gives it. The noise of an edit depends on the seed and the
edit's key only. Batches do not depend on what is there already, so that a call that was stopped ends with the same
files.
"""

import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from editloop.content import MANIFEST, file_digests, read_manifest, sha256_json, write_file
from editloop.data.picture_file import read_picture
from editloop.errors import EditLoopError
from editloop.evaluation.editor_suites.tasks import EditorSuite, EditorTask
from editloop.models.editors.protocol import Editor
from editloop.models.editors.sampling import edit, working_picture
from editloop.models.editors.settings import Size
from editloop.models.editors.task_check import AskedTask, check_tasks
from editloop.progress import track
from editloop.scoring.resuming import locked_folder
from editloop.settings_file import FrozenModel

BATCHES_AT_ONCE = 4
"""Batches of a call of the editor, so that several cores have one each. What is made by then is lost by a kill."""
SETTINGS_FILE = "edits.json"
"""What the edits of a folder depend on."""


class EditorSampling(FrozenModel):
    """How an editor is sampled."""

    steps: int = 8
    """Denoising steps."""
    guidance: float | None = None
    """As in `Editor.velocity`."""
    seed: int = 0
    """Seed of the noise of all edits."""

    def describe(self) -> str:
        """Return steps, guidance and seed in words."""
        guidance = "its own guidance" if self.guidance is None else f"guidance {self.guidance:g}"
        return f"{self.steps} steps, {guidance}, seed {self.seed}"


def editor_version(folder: Path) -> str:
    """Return the content address of an editor's folder: its manifest's, or that of its files.

    Args:
        folder: The folder of the pipeline.
    """
    if (folder / MANIFEST).is_file():
        return str(read_manifest(folder)["sha256"])
    return sha256_json(file_digests(folder))


def edit_seed(seed: int, key: str) -> int:
    """Return the seed of the noise of one edit of a benchmark.

    Args:
        seed: Seed of all edits.
        key: The task's key.
    """
    return int(sha256_json(["benchmark", seed, key])[:15], 16)


def edit_file(folder: Path, task: EditorTask) -> Path:
    """Return the file of a task's edit.

    Args:
        folder: The folder of the edits.
        task: The task.
    """
    return folder / f"{task.key}.png"


def make_edits(
    suite: EditorSuite, editor: Editor, version: str, folder: Path, sampling: EditorSampling, *, batch: int = 16
) -> None:
    """Make the edits that are not there yet.

    Args:
        suite: The benchmark.
        editor: The editor.
        version: Content address of the editor.
        folder: Folder of the edits.
        sampling: How the editor is sampled.
        batch: Edits of one size that are made together, at most.

    Raises:
        EditLoopError: Another call is writing there, the editor cannot take an instruction, or the folder has edits of
            another editor, benchmark or sampling.
    """
    check_tasks(editor, (AskedTask(task.key, task.instruction) for task in suite.tasks))
    facts = {"suite": suite.name, "suite_sha256": suite.sha256, "editor": version, **sampling.model_dump()}
    sizes = {task.key: _working_size(editor, task) for task in suite.tasks}
    in_order = sorted(suite.tasks, key=lambda task: sizes[task.key])
    chunk = batch * BATCHES_AT_ONCE
    parts = [in_order[start : start + chunk] for start in range(0, len(in_order), chunk)]
    with locked_folder(folder, SETTINGS_FILE, facts, f"{folder} holds edits", "give another folder, or remove it"):
        for part in track(parts, description=f"{suite.name} is edited"):
            if all(edit_file(folder, task).is_file() for task in part):
                continue
            for task, picture in zip(part, _edits(part, editor, sampling, batch), strict=True):
                buffer = io.BytesIO()
                picture.save(buffer, "PNG")
                write_file(edit_file(folder, task), buffer.getvalue())


def _working_size(editor: Editor, task: EditorTask) -> Size:
    width, height = read_picture(task.source.read(), task.source.name).size
    return editor.size_for(height, width)


def _edits(tasks: Sequence[EditorTask], editor: Editor, sampling: EditorSampling, batch: int) -> list[Image.Image]:
    edits = edit(
        editor,
        [task.instruction for task in tasks],
        [working_picture(editor, read_picture(task.source.read(), task.source.name)) for task in tasks],
        seeds=[edit_seed(sampling.seed, task.key) for task in tasks],
        steps=sampling.steps,
        guidance=sampling.guidance,
        largest_batch=batch,
    )
    return [Image.fromarray(picture) for picture in edits]


def find_edit_images(suite: EditorSuite, folder: Path) -> Path:
    """Return the folder in which the edits of a benchmark lie as it names them: `folder` itself or its `fullset`.

    Args:
        suite: The benchmark.
        folder: Folder of edits that were made elsewhere.

    Raises:
        EditLoopError: There is no edit of the benchmark.
    """
    for root in (folder, folder / "fullset"):
        if any(edit_file(root, task).is_file() for task in suite.tasks):
            return root
    example = edit_file(folder, suite.tasks[0])
    raise EditLoopError(f"--images {folder}: no edit of {suite.name} in it; the first would be {example}.")
