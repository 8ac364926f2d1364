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
    units: Annotated[
        int, typer.Option(min=0, help="Groups (EditReward) or rows (EditScore) of an epoch: also plan the work.")
    ] = 0,
    editor_weights: Annotated[float, typer.Option(min=0, help="Online RL: weights of the editor's network, 1e9.")] = 12,
    edit_tokens: Annotated[int, typer.Option(min=1, help="Online RL: tokens of a pass of the network.")] = 8704,
    tflops: Annotated[float, typer.Option(min=1, help="Dense bf16 TFLOP/s of a GPU; 989 is an H100's.")] = 989.0,
    utilisation: Annotated[float, typer.Option(min=0.01, max=1, help="Share of it that is reached.")] = 0.3,
) -> None:
    """Estimate what a training needs on each GPU, say whether it fits, and if not what to change.

    For example: editloop plan editreward-qwen2.5-vl-7b --gpus 8 --gpu-memory 80

    Weights, gradients and optimiser states follow from the model and the ZeRO stage; activations from how much goes
    through the model at a time, with or without gradient checkpointing. Ends with 1 where it does not fit. To change a
    setting, copy the preset's file, edit it, and give its path here and to the reward stage as `preset`. With --units,
    and for a preset of online RL, it also estimates GPU hours. docs/sizing.md has examples.
    """
    from rich.table import Table

    from editloop.terminal import text_console
    from editloop.training.editor_rl.settings import read_rl_preset, rl_preset_names
    from editloop.training.memory_plan import (
        USABLE_SHARE,
        estimate_memory,
        pass_tokens,
        suggest_changes,
        trained_weights,
    )
    from editloop.training.presets import load_preset, reward_presets
    from editloop.training.work_plan import rl_work, training_work

    console = text_console()
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
    if preset in rl_preset_names() and preset not in reward_presets():
        settings = read_rl_preset(preset)
        tasks = max(settings.tasks, gpus)
        work = rl_work(settings.model_copy(update={"tasks": tasks}), editor_weights * 1e9, edit_tokens)
        table = Table(title=f"{preset}, an iteration on {gpus} GPUs")
        for heading in ("", "PFLOP", "GPU hours", "seconds"):
            table.add_column(heading, justify="right" if heading else "left")
        parts = ((f"{work.edits} edits", work.sampling), ("updates", work.updates))
        for name, operations in (*parts, ("together", work.sampling + work.updates)):
            hours = gpu_hours(operations, tflops, utilisation)
            table.add_row(name, f"{operations / 1e15:,.0f}", f"{hours:.2f}", f"{hours * 3600 / gpus:.1f}")
        console.print(table)
        if tasks > settings.tasks:
            console.print(f"planned with tasks: {tasks}; the preset has {settings.tasks}, and each process needs one")
        console.print(f"{editor_weights:g} B weights, {edit_tokens} tokens, {utilisation:.0%} of {tflops:g} TFLOP/s")
        return
    chosen = load_preset(preset)
    training = chosen.training
    if micro_batch:
        training = training.model_validate(training.model_dump() | {"micro_batch": micro_batch})
    memory = estimate_memory(chosen, training, gpus)
    total_weights, trained = trained_weights(chosen, training)
    micro, passes = training.accumulation(gpus, training.batch)
    load, step_units = pass_tokens(chosen, micro), min(training.batch, gpus * micro * passes)
    table = Table(title=f"{preset} on {gpus} x {gpu_memory:g} GiB, ZeRO-{training.zero_stage}, bf16")
    table.add_column("on each GPU")
    table.add_column("GiB", justify="right")
    table.add_column("")
    rows = (
        ("weights", memory.weights, f"{total_weights / 1e9:.2f} B"),
        ("gradients", memory.gradients, f"{trained / 1e9:.3g} B are trained"),
        ("optimiser", memory.optimiser, "AdamW: fp32 masters and two moments"),
        ("a pass", memory.passing, f"activations of {load.language} tokens, {load.patches} patches; or AdamW's step"),
        ("together", memory.total, f"{passes} passes make a step of {step_units} units"),
    )
    for name, value, words in rows:
        table.add_row(name, f"{value / GIB:.1f}", words)
    console.print(table)
    if units:
        plan = training_work(chosen, training, gpus, units)
        hours = gpu_hours(plan.operations, tflops, utilisation)
        console.print(
            f"work: {plan.steps:,} steps, {plan.operations:.2g} FLOP, {hours:,.0f} GPU hours, {hours / gpus:,.1f} h on "
            f"{gpus} GPUs at {utilisation:.0%} of {tflops:g} TFLOP/s"
        )
        console.print(f"traffic: {plan.traffic / GIB:.1f} GiB sent by each GPU in a step")
        console.print(f"a checkpoint: {plan.checkpoint / GIB:.1f} GiB")
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


def gpu_hours(operations: float, tflops: float, utilisation: float) -> float:
    """Return the GPU hours of a number of floating-point operations.

    Args:
        operations: The number.
        tflops: Operations of a GPU in a second at its best, 1e12.
        utilisation: Share of it that is reached.
    """
    return operations / (tflops * 1e12 * utilisation) / 3600
