"""Checkpoints of a training, from which a later call continues. All ranks write; the manifest comes last.

A folder `step-00000120/` holds DeepSpeed's states under `engine/`, the step and history in `progress.json`, and in
`beside.safetensors` the tensors that a training stores in addition. DeepSpeed's own files are pickles. They are read
after every byte has been compared with the manifest, and restricted to what a state holds
(`editloop.training.checkpoint_pickles`). A job with another number of ranks reads them as a universal checkpoint.
"""

import logging
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import torch.distributed as distributed
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor

from editloop.content import MANIFEST, complete_folder, read_manifest, write_json
from editloop.errors import EditLoopError
from editloop.json_file import read_json_record
from editloop.models.backbones.weight_files import TensorFileWriter
from editloop.settings_file import FrozenModel
from editloop.training.checkpoint_pickles import restricted_pickles
from editloop.training.distributed import broadcast_object, gather_files, is_first_on_disk
from editloop.training.engine import trainable_outline, trainable_tensors

log = logging.getLogger(__name__)

ENGINE, PROGRESS, EXTRA_TENSORS = "engine", "progress.json", "beside.safetensors"
BEST, STATE = "best", "trained.safetensors"
UNIVERSAL = ".universal"
"""Folder beside the checkpoints, while one is read in the universal form."""
DELETE = "Delete this checkpoint to go on at the one before."


class TrainingProgress(NamedTuple):
    """Step and history of a training, and why it stopped early."""

    step: int
    """Number of optimiser steps done."""
    history: dict[str, list[dict[str, float]]]
    """`steps` and `evaluations` so far. Online RL adds `solved` and `ended`."""
    reason: str = ""
    """Why it stopped early; empty where it did not."""


class SavedProgress(FrozenModel):
    """Content of PROGRESS."""

    step: int
    history: dict[str, list[Any]]
    reason: str = ""

    def as_progress(self) -> TrainingProgress:
        """Return it as the training's progress."""
        return TrainingProgress(self.step, self.history, self.reason)


class CheckpointFacts(FrozenModel):
    """Facts of a checkpoint's manifest."""

    identity: str
    step: int
    ranks: int
    zero_stage: int


class SavedCheckpoint(NamedTuple):
    """A complete checkpoint on disk."""

    folder: Path
    step: int
    as_universal: bool
    """Whether a job with another number of ranks wrote it, so that it must be read as a universal checkpoint."""


def save(
    engine: Any,
    folder: Path,
    progress: TrainingProgress,
    *,
    identity: str,
    checkpoints_kept: int,
    extra_tensors: dict[str, Tensor] | None = None,
) -> Path:
    """Write a checkpoint of all ranks' states, then delete older ones. Every rank calls it.

    Args:
        engine: DeepSpeed's engine.
        folder: The training's folder; the checkpoint becomes a subfolder of it.
        progress: Step and history, stored with the checkpoint.
        identity: Digest of what is trained and how. `find_newest` refuses a checkpoint with another identity.
        checkpoints_kept: Number of newest checkpoints to keep, this one included.
        extra_tensors: Tensors that are the same on all ranks, such as averaged weights. `read_extra_tensors` returns
            them. None stores none.

    Returns:
        The checkpoint's folder.
    """
    first = distributed.get_rank() == 0
    target = folder / f"step-{progress.step:08d}"
    facts = {"identity": identity, "step": progress.step, **_layout(engine)}
    with ExitStack() as stack:
        # Each machine has its own folder of this name
        out = folder / broadcast_object(stack.enter_context(complete_folder(target, facts)).name if first else None)
        partial = any(not parameter.requires_grad for parameter in engine.module.parameters())
        engine.save_checkpoint(str(out), ENGINE, save_latest=False, exclude_frozen_parameters=partial)
        if first:
            write_json(out / PROGRESS, progress._asdict())
            if extra_tensors:
                save_file(
                    {name: value.detach().cpu() for name, value in extra_tensors.items()},
                    out / EXTRA_TENSORS,
                )
        gather_files(out)
    if first:
        for old in _complete(folder)[:-checkpoints_kept]:
            (old / MANIFEST).unlink()  # without it the checkpoint does not count, even if the deletion is cut short
            shutil.rmtree(old)
    distributed.barrier()
    return target


def find_newest(folder: Path, zero_stage: int, *, identity: str) -> SavedCheckpoint | None:
    """Return the newest intact checkpoint, after rank 0 has checked its bytes. Every rank calls it.

    One that was changed or cut since it was written is removed: what comes after it is computed again.

    Args:
        folder: The training's folder.
        zero_stage: ZeRO stage of the present job.
        identity: Digest of what is trained and how, as given to `save`.

    Returns:
        The checkpoint, or None where there is none.

    Raises:
        EditLoopError: The checkpoint belongs to another training, or cannot be read with this ZeRO stage or number of
            ranks.
    """
    newest_checkpoint: SavedCheckpoint | EditLoopError | None = None
    if distributed.get_rank() == 0:
        try:
            newest_checkpoint = _newest(folder, zero_stage, identity)
        except EditLoopError as error:
            newest_checkpoint = error
    shared_checkpoint: SavedCheckpoint | EditLoopError | None = broadcast_object(newest_checkpoint)
    if isinstance(shared_checkpoint, EditLoopError):
        raise shared_checkpoint
    return shared_checkpoint and shared_checkpoint._replace(folder=folder / shared_checkpoint.folder.name)


def load(engine: Any, checkpoint: SavedCheckpoint) -> TrainingProgress:
    """Bring the engine to a checkpoint's state. Every rank calls it.

    Args:
        engine: DeepSpeed's engine.
        checkpoint: What `find_newest` returned in this job.

    Returns:
        Step and history of the checkpoint.

    Raises:
        EditLoopError: DeepSpeed cannot read the checkpoint, or cannot convert it for another number of ranks.
    """
    source, writes = checkpoint.folder, False
    if checkpoint.as_universal:
        source = checkpoint.folder.parent / UNIVERSAL
        writes = is_first_on_disk(checkpoint.folder.parent)
        if writes:
            _write_universal(checkpoint.folder, source)
        distributed.barrier()
    partial = any(not parameter.requires_grad for parameter in engine.module.parameters())
    with restricted_pickles(checkpoint.folder):
        path, _ = engine.load_checkpoint(str(source), ENGINE, load_module_strict=not partial)
    if path is None:
        raise EditLoopError(f"{checkpoint.folder}: DeepSpeed could not read it. Delete it to go on at the one before.")
    distributed.barrier()
    if writes:
        shutil.rmtree(source)
    return read_json_record(checkpoint.folder / PROGRESS, SavedProgress, DELETE).as_progress()


def read_extra_tensors(checkpoint: SavedCheckpoint) -> dict[str, Tensor]:
    """Return the extra tensors that a checkpoint was saved with, by name.

    Args:
        checkpoint: A checkpoint that was saved with extra tensors.
    """
    return load_file(checkpoint.folder / EXTRA_TENSORS)


def save_best(engine: Any, folder: Path, step: int) -> None:
    """Replace the saved best state by the engine's present trainable parameters. Every rank calls it.

    They are gathered and written one after the other.

    Args:
        engine: DeepSpeed's engine.
        folder: The training's folder.
        step: The present step, stored in the manifest.
    """
    with ExitStack() as stack:
        writer = None
        if distributed.get_rank() == 0:
            out = stack.enter_context(complete_folder(folder / BEST, {"step": step}))
            writer = stack.enter_context(TensorFileWriter(out / STATE, trainable_outline(engine.module)))
        for name, value in trainable_tensors(engine):
            if writer:
                writer.write(name, value)
    distributed.barrier()


def best_state(folder: Path) -> Path:
    """Return the file of the best state, after its bytes are checked.

    Args:
        folder: The training's folder.

    Raises:
        EditLoopError: There is no best state, or a file of it was changed.
    """
    read_manifest(folder / BEST, check=True)
    return folder / BEST / STATE


def _newest(folder: Path, zero_stage: int, identity: str) -> SavedCheckpoint | None:
    for torn in folder.glob(".*"):  # left by a job that was killed while writing
        if torn.is_dir():
            shutil.rmtree(torn)
    for last in reversed(_complete(folder)):
        try:
            facts = CheckpointFacts.model_validate(read_manifest(last, check=True)["facts"])
            break
        except ValidationError:
            raise EditLoopError(f"{last / MANIFEST}: its facts are not those of a checkpoint. {DELETE}") from None
        except EditLoopError as error:
            log.warning("%s: passed over; the training goes on at an earlier state (%s)", last, error)
            shutil.rmtree(last)
    else:
        return None
    if facts.identity != identity:
        raise EditLoopError(
            f"{last}: a checkpoint of another training (other settings, data or base). Give another folder, or delete "
            "this one to begin anew."
        )
    ranks = distributed.get_world_size()
    as_universal = facts.ranks != ranks and zero_stage > 0
    # DeepSpeed 0.19 reads states of another stage wrongly or not at all, and those of stage 3 wrongly where the number
    # of ranks differs.
    if facts.zero_stage != zero_stage or (as_universal and zero_stage == 3):
        raise EditLoopError(
            f"{last}: written by {facts.ranks} processes at zero_stage {facts.zero_stage}; {ranks} processes at "
            f"zero_stage {zero_stage} cannot go on there. The stage must be the same, and for stage 3 the number of "
            "processes too. Set them so, or delete this folder to begin anew."
        )
    return SavedCheckpoint(last, facts.step, as_universal)


def _complete(folder: Path) -> list[Path]:
    return sorted(path.parent for path in folder.glob(f"step-*/{MANIFEST}"))


def _layout(engine: Any) -> dict[str, int]:
    return {"ranks": distributed.get_world_size(), "zero_stage": engine.zero_optimization_stage()}


def _write_universal(checkpoint: Path, universal_folder: Path) -> None:
    """Write a checkpoint in the form that a job of any size reads."""
    shutil.rmtree(universal_folder, ignore_errors=True)
    command = [
        sys.executable,
        "-m",
        "editloop.training.checkpoint_pickles",
        "--input_folder",
        str(checkpoint / ENGINE),
        "--output_folder",
        str(universal_folder / ENGINE),
        "--inject_missing_state",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise EditLoopError(
            f"{checkpoint}: cannot be read by a job of another size: {done.stderr.strip()[-2000:]}. Go on with "
            f"{read_manifest(checkpoint)['facts']['ranks']} processes."
        )
