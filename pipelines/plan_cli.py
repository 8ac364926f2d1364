"""`editloop plan`: estimate whether editing or a training fits into GPU memory, and the work of it."""

from typing import Annotated

import typer

from editloop.data.vocabulary import MOST_REFERENCES
from editloop.errors import EditLoopError


def plan_command(
    model: Annotated[
        str,
        typer.Argument(
            help="A reward preset or an editor, by its shipped name or YAML file; without one all shipped ones are "
            "listed, with the GPUs that they fit on."
        ),
    ] = "",
    rl: Annotated[str, typer.Option(help="Of an editor: plan online RL with this preset.")] = "",
    sft: Annotated[str, typer.Option(help="Of an editor: plan supervised fine-tuning with this preset.")] = "",
    gpus: Annotated[int, typer.Option(min=1, help="GPUs that share the training.")] = 8,
    gpu_memory: Annotated[float, typer.Option(min=1, help="Memory of each, GiB.")] = 80.0,
    micro_batch: Annotated[
        int, typer.Option(min=0, help="Units or edits a GPU takes at a time; 0 for the preset's.")
    ] = 0,
    side: Annotated[int, typer.Option(min=0, help="Of an editor: side of an edit in pixels; 0 for the preset's.")] = 0,
    references: Annotated[
        int, typer.Option(min=0, max=MOST_REFERENCES, help="Reference images of a task, besides its source.")
    ] = 0,
    units: Annotated[
        int, typer.Option(min=0, help="Groups (EditReward) or rows (EditScore) of an epoch: also plan the work.")
    ] = 0,
    tflops: Annotated[float, typer.Option(min=1, help="Dense bf16 TFLOP/s of a GPU; 989 is an H100's.")] = 989.0,
    utilisation: Annotated[float, typer.Option(min=0.01, max=1, help="Share of it that is reached.")] = 0.3,
) -> None:
    """Estimate what a training or editing needs on each GPU, say whether it fits, and if not what to change.

    For example: editloop plan editreward-qwen2.5-vl-7b --gpus 8 --gpu-memory 80

    Of an editor: editloop plan flux-kontext --rl edit-r1 --gpus 8 --side 512

    Weights, gradients and optimiser states follow from the model and the ZeRO stage; activations from how much goes
    through the model at a time, with or without gradient checkpointing. Ends with 1 where it does not fit. To change a
    setting, copy the preset's file, edit it, and give its path here and to the stage as `preset`. With --units, and for
    online RL, it also estimates GPU hours. docs/sizing.md has examples.
    """
    from pipelines.plan_tables import GpuPlan, is_editor, list_presets, print_editor_plan, print_judge_plan

    plan = GpuPlan(gpus, gpu_memory, tflops, utilisation, micro_batch, references)
    if not model:
        list_presets()
        return
    if is_editor(model):
        if units:
            raise EditLoopError(f"--units {units}: {model} is an editor, and units are a reward model's; leave it out.")
        fits = print_editor_plan(model, plan, rl=rl, sft=sft, side=side)
    else:
        for option, value in (("--rl", rl), ("--sft", sft), ("--side", side)):
            if value:
                raise EditLoopError(
                    f"{option} {value}: {model} is a reward model, and this is an editor's; leave it out."
                )
        fits = print_judge_plan(model, plan, units)
    if not fits:
        raise typer.Exit(1)
