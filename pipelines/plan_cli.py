"""`editloop plan`: estimate whether a training fits into GPU memory."""

from typing import Annotated

import typer

GIB = 2**30


def plan_command(
    preset: Annotated[
        str, typer.Argument(help="A shipped name or a preset's YAML file; without one the shipped ones are listed.")
    ] = "",
    gpus: Annotated[int, typer.Option(min=1, help="GPUs that share the training.")] = 8,
    gpu_memory: Annotated[float, typer.Option(min=1, help="Memory of each, GiB.")] = 80.0,
    micro_batch: Annotated[int, typer.Option(min=0, help="Units a GPU takes at a time; 0 for the preset's.")] = 0,
) -> None:
    """Estimate what a training needs on each GPU, say whether it fits, and if not what to change.

    For example: editloop plan editreward-qwen2.5-vl-7b --gpus 8 --gpu-memory 80

    Weights, gradients and optimiser states follow from the model and the ZeRO stage; activations from how much goes
    through the model at a time, with or without gradient checkpointing. Ends with 1 where it does not fit. To change a
    setting, copy the preset's file, edit it, and give its path here and to the reward stage as `preset`.
    """
    from rich.console import Console
    from rich.table import Table

    from editloop.training.memory_plan import (
        USABLE_SHARE,
        estimate_memory,
        pass_tokens,
        suggest_changes,
        trained_weights,
    )
    from editloop.training.presets import load_preset, reward_presets

    console = Console()
    if not preset:
        table = Table(title="Presets")
        for heading in ("name", "starts from", "weights", "trained", "ZeRO"):
            figure = heading in ("weights", "trained", "ZeRO")
            table.add_column(heading, justify="right" if figure else "left", no_wrap=heading == "name")
        for name in reward_presets():
            preset_settings = load_preset(name)
            total_weights, trained = trained_weights(preset_settings, preset_settings.training)
            stage = str(preset_settings.training.zero_stage)
            table.add_row(
                name, preset_settings.base, f"{total_weights / 1e9:.3g} B", f"{trained / total_weights:.1%}", stage
            )
        console.print(table)
        return
    chosen = load_preset(preset)
    training = chosen.training
    if micro_batch:
        training = training.model_validate(training.model_dump() | {"micro_batch": micro_batch})
    memory = estimate_memory(chosen, training, gpus)
    total_weights, trained = trained_weights(chosen, training)
    micro, passes = training.accumulation(gpus, training.batch)
    load, units = pass_tokens(chosen, micro), min(training.batch, gpus * micro * passes)
    table = Table(title=f"{preset} on {gpus} x {gpu_memory:g} GiB, ZeRO-{training.zero_stage}, bf16")
    table.add_column("on each GPU")
    table.add_column("GiB", justify="right")
    table.add_column("")
    rows = (
        ("weights", memory.weights, f"{total_weights / 1e9:.2f} B"),
        ("gradients", memory.gradients, f"{trained / 1e9:.3g} B are trained"),
        ("optimiser", memory.optimiser, "AdamW: fp32 masters and two moments"),
        ("a pass", memory.passing, f"activations of {load.language} tokens, {load.patches} patches; or AdamW's step"),
        ("together", memory.total, f"{passes} passes make a step of {units} units"),
    )
    for name, value, words in rows:
        table.add_row(name, f"{value / GIB:.1f}", words)
    console.print(table)
    if memory.host:
        console.print(f"main memory for offloading: {gpus * memory.host / GIB:.0f} GiB in all")
    if memory.total <= USABLE_SHARE * gpu_memory * GIB:
        console.print(f"fits: {memory.total / GIB:.1f} of {gpu_memory:g} GiB")
        return
    console.print(
        f"does not fit: {memory.total / GIB:.1f} GiB, of {gpu_memory:g} GiB about {USABLE_SHARE:.0%} can be filled"
    )
    changes = suggest_changes(chosen, training, gpus, gpu_memory * GIB)
    if changes:
        console.print(f"it would with {', '.join(changes)} under `training:`")
    else:
        larger = (2**power for power in range(11) if 2**power > gpus)
        enough = (count for count in larger if suggest_changes(chosen, training, count, gpu_memory * GIB) is not None)
        remedy = next((f"{count} would do" for count in enough), "train an adapter")
        console.print(f"no setting is enough on {gpus} GPUs; {remedy}")
    raise typer.Exit(1)
