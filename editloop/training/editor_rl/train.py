"""Online RL of an editor: one rank of a DeepSpeed job, started by `editloop.training.launch`.

    torchrun --nproc-per-node 2 -m editloop.training.editor_rl.train job.json

Each iteration edits a few tasks several times, scores the edits, and moves the editor towards the better ones of each
group. Flow-GRPO puts noise into a window of steps and learns from their log-probabilities; outside the window steps
are deterministic and carry no gradient. DiffusionNFT noises finished edits anew. On drawn scenes with the oracle as
reward, 40 iterations of NFT lifted the reward by 0.02 to 0.03, 60 of Flow-GRPO by 0.01 (one seed each): NFT is the
default.
"""

import sys
from pathlib import Path

import torch
import torch.distributed as distributed
from safetensors.torch import load_file
from torch import nn

from editloop.content import write_json
from editloop.data.edits_file import EditRow, read_edits
from editloop.evaluation.editors import split_held_out
from editloop.models.editors.opening import open_editor
from editloop.models.editors.protocol import Editor
from editloop.training import checkpoint
from editloop.training.distributed import device, end_rank, start_rank
from editloop.training.editor_rl.evaluator import Evaluator
from editloop.training.editor_rl.loop import Training
from editloop.training.editor_rl.prompts import Prompts
from editloop.training.editor_rl.scoring import open_reward_judges
from editloop.training.editor_rl.settings import RlJob, RlSettings
from editloop.training.engine import put_state


def fast_bf16() -> bool:
    """Whether this machine multiplies faster in bfloat16 than in float32."""
    return torch.cuda.is_available() or torch.cpu._is_avx512_bf16_supported()


def computes_in_bf16(settings: RlSettings) -> bool:
    """Whether the network multiplies in bfloat16 on this machine."""
    return settings.precision == "bf16" or (settings.precision == "auto" and fast_bf16())


def weights_dtype(settings: RlSettings) -> torch.dtype:
    """Of the weights that an editor is opened with. Frozen ones are bfloat16 on a GPU that multiplies in it: half the
    memory, no conversion at each pass. What is trained, an adapter or the whole network, is float32."""
    frozen = settings.train == "lora" and device().type == "cuda" and computes_in_bf16(settings)
    return torch.bfloat16 if frozen else torch.float32


def open_to_train(address: str, settings: RlSettings) -> tuple[Editor, list[nn.Parameter]]:
    """The editor on this rank's device, and what of it is trained."""
    editor = open_editor(address, device=str(device()), dtype=weights_dtype(settings))
    return editor, prepare_to_train(editor, settings)


def prepare_to_train(editor: Editor, settings: RlSettings) -> list[nn.Parameter]:
    """What of an opened editor is trained, float32: new weights are drawn from the seed."""
    torch.manual_seed(settings.seed)
    editor.bf16 = computes_in_bf16(settings)
    if settings.train == "full":
        return editor.train_whole()
    return editor.add_adapter(settings.rank, settings.alpha, settings.targets or None)


def tasks_of(job: RlJob) -> tuple[list[EditRow], list[EditRow]]:
    """Tasks to practise, and those that evaluations look at."""
    rows = read_edits(job.edits)
    if job.held_out:
        return rows, read_edits(job.held_out)
    return split_held_out(rows, job.settings.evaluation_tasks, job.settings.seed)


def main(job: RlJob) -> None:
    """Train on this rank; rank 0 writes the editor with its averaged weights, and the curves."""
    start_rank()
    practised, held_out = tasks_of(job)
    editor, trained = open_to_train(job.editor, job.settings)
    prompts = Prompts(practised, editor, cache_size=job.settings.encodings, seed=job.settings.seed)
    reward_judges = open_reward_judges(
        list(job.rewards), practised, prompts.sizes, patience=job.settings.judge_patience
    )
    training = Training(job, editor, trained, prompts, reward_judges)
    first = distributed.get_rank() == 0
    evaluator = None
    if first:
        evaluator = Evaluator(
            held_out,
            job.settings,
            rewards=job.rewards,
            judges=reward_judges.judges,
            watch=job.watch,
            folder=job.checkpoints / "watch",
            output=job.output,
            through=training.progress.step,
        )
    finished = training.run(evaluator)
    if evaluator:
        evaluator.close()
        if finished.history["ended"] and (job.checkpoints / checkpoint.BEST).is_dir():
            put_state(editor.network, load_file(checkpoint.best_state(job.checkpoints)))
        editor.save(job.output / "editor")
        curves = {name: lines for name, lines in finished.history.items() if lines}  # DVC cannot draw an empty list
        write_json(job.output / "training.json", curves | {"reason": finished.reason})
    end_rank()


if __name__ == "__main__":
    main(RlJob.model_validate_json(Path(sys.argv[1]).read_text()))
