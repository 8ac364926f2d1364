"""Tables of `editloop plan`: what ships and where it fits, and one model on given GPUs."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from rich.table import Table

from editloop.errors import EditLoopError, there_are
from editloop.models.editors.settings import read_editor_preset
from editloop.settings_file import is_preset_path, read_yaml
from editloop.terminal import text_console
from editloop.training.editor_architecture import (
    EditorArchitecture,
    editor_architecture_names,
    read_editor_architecture,
)
from editloop.training.editor_plan import (
    EditorJob,
    EditorNeed,
    EditorTraining,
    editor_jobs,
    fewest_gpus,
    plan_editing,
    plan_training,
    rl_training,
    sft_training,
    suggest_editor_changes,
)
from editloop.training.editor_rl.settings import RlSettings, read_rl_preset
from editloop.training.editor_sft.settings import read_sft_preset
from editloop.training.memory_plan import (
    USABLE_SHARE,
    estimate_memory,
    pass_tokens,
    suggest_changes,
    trained_weights,
)
from editloop.training.presets import Preset, load_preset, reward_presets
from editloop.training.work_plan import rl_work, training_work

GIB = 2**30
MEMORIES = (24, 48, 80, 141)
"""GiB of a GPU that presets are fitted to: RTX 4090, L40S, H100, H200."""


class GpuPlan(NamedTuple):
    """The GPUs that are planned for."""

    gpus: int
    memory: float
    """GiB of each."""
    tflops: float
    """Operations of a GPU in a second at its best, 1e12."""
    utilisation: float
    """Share of it that is reached."""
    micro_batch: int
    """Units or edits at a time; 0 for the preset's."""
    references: int = 0
    """Reference images of a task, besides its source; of a reward preset 0 means as many as its `load` says."""

    def hours(self, operations: float) -> float:
        """Return the GPU hours of a number of floating-point operations.

        Args:
            operations: The number.
        """
        return operations / (self.tflops * 1e12 * self.utilisation) / 3600


def is_editor(model: str) -> bool:
    """Return whether a shipped name or a YAML file is an editor's shape; otherwise it is a reward preset.

    Args:
        model: The name or the file.

    Raises:
        EditLoopError: There is no such name or file.
    """
    judges, editors = reward_presets(), editor_architecture_names()
    if model in (*judges, *editors):
        return model in editors
    if not is_preset_path(model) or not Path(model).is_file():
        raise EditLoopError(f"model {model!r}: no such file or name; {there_are(model, (*judges, *editors))}")
    return "blocks" in (read_yaml(Path(model)) or ())


def list_presets() -> None:
    """Print all reward presets and editors, and the fewest GPUs of each size of memory that each fits on."""
    console = text_console()
    judges = _memory_table("Reward models, with their presets' settings", ("weights", "trained", "ZeRO"))
    for name in reward_presets():
        preset = load_preset(name)
        all_weights, trained = trained_weights(preset, preset.training)
        figures = (f"{all_weights / 1e9:.3g} B", f"{trained / all_weights:.1%}", str(preset.training.zero_stage))
        judges.add_row(name, *figures, *_fewest(partial(_judge_total, preset)))
    console.print(judges)
    editors = _memory_table("Editors", ("weights", "job"))
    editors.caption = "one edit at a time, gradients checkpointed"
    for name in editor_architecture_names():
        shape = read_editor_architecture(name)
        for index, job in enumerate(editor_jobs(shape)):
            first = ("", "") if index else (name, f"{shape.weights / 1e9:.3g} B")
            editors.add_row(*first, job.name, *_fewest(partial(_editor_total, job)))
    console.print(editors)


def _memory_table(title: str, headings: Sequence[str]) -> Table:
    """An empty table with a column for each size of memory, narrow enough for 80 characters."""
    table = Table(title=f"{title}: fewest GPUs of {', '.join(map(str, MEMORIES))} GiB")
    table.add_column("name", no_wrap=True)
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "job" else "right", no_wrap=True)
    for memory in MEMORIES:
        table.add_column(str(memory), justify="right", no_wrap=True)
    return table


def _judge_total(preset: Preset, gpus: int) -> float:
    return estimate_memory(preset, preset.training, gpus).total


def _editor_total(job: EditorJob, gpus: int) -> float:
    return job.need(gpus).total


def _fewest(total: Callable[[int], float]) -> list[str]:
    counts = (fewest_gpus(total, memory * GIB) for memory in MEMORIES)
    return ["-" if count is None else str(count) for count in counts]


def print_editor_plan(name: str, plan: GpuPlan, *, rl: str, sft: str, side: int) -> bool:
    """Print what an editor needs, and say whether it fits.

    Args:
        name: A shipped name or a YAML file.
        plan: The GPUs.
        rl: Preset of online RL; empty: none.
        sft: Preset of supervised fine-tuning; empty: none. Without either, editing is planned.
        side: Side of an edit in pixels; 0 for the preset's.

    Raises:
        EditLoopError: There is no such editor or preset, or both trainings are given.
    """
    if rl and sft:
        raise EditLoopError(f"--rl {rl} and --sft {sft}: they are two trainings; give one.")
    shape = read_editor_architecture(name)
    settings = read_rl_preset(rl) if rl else None
    tuning = read_sft_preset(sft) if sft else None
    area = (settings and settings.area) or (tuning and tuning.area) or read_editor_preset(shape.preset).area
    pixels = side**2 or area
    if settings:
        settings = settings.model_copy(update={"tasks": max(settings.tasks, plan.gpus)})
        training: EditorTraining | None = rl_training(settings, plan.gpus)
    else:
        training = sft_training(tuning, plan.gpus) if tuning else None
    if training and plan.micro_batch:
        training = training._replace(micro_batch=plan.micro_batch)
    if training:
        training = training._replace(references=plan.references)
        need = plan_training(shape, training, plan.gpus, pixels)
    else:
        need = plan_editing(shape, pixels, max(1, plan.micro_batch), references=plan.references)
    subject = f"online RL {rl}" if rl else f"fine-tuning {sft}" if sft else "editing"
    title = f"{name}, {subject}, {pixels / 2**20:.3g} megapixels, on {plan.gpus} x {plan.memory:g} GiB, bf16"
    text_console().print(_editor_table(title, shape, need, training))
    if settings:
        _print_rl_work(settings, shape, pixels, plan)
    if _print_verdict(need.total, plan):
        return True
    changes = suggest_editor_changes(shape, training, plan.gpus, pixels, plan.memory * GIB) if training else None
    text_console().print(
        f"it would with {', '.join(changes)}"
        if changes
        else f"no setting is enough; take smaller edits ({'`area`, here ' if training else ''}--side) or a GPU with "
        "more memory (--gpu-memory)"
    )
    return False


def _editor_table(title: str, shape: EditorArchitecture, need: EditorNeed, training: EditorTraining | None) -> Table:
    table = Table(title=title)
    table.add_column("on each GPU")
    table.add_column("GiB", justify="right")
    table.add_column("")
    rows = [("weights", need.weights, f"{shape.weights / 1e9:.2f} B")]
    if training:
        rank = training.adapter_rank
        what = "all weights" if rank is None else f"adapter, {rank * shape.adapter_ends / 1e9:.3g} B"
        rows.append(("trained", need.trained, f"{what}: fp32, gradients, AdamW's states, averages"))
    rows.append(("edits", need.edits, "encoded tasks, latents, velocities"))
    rows.append(("encoding", need.encode, "text encoders and codec"))
    if need.sample:
        rows.append(("sampling", need.sample, "a pass without gradients"))
        rows.append(("decoding", need.decode, "the codec"))
    if training:
        checkpointed = "with" if training.checkpointing else "without"
        edits = "edits" if training.micro_batch > 1 else "edit"
        rows.append(
            ("update", need.update, f"{training.micro_batch} {edits} at a time, {checkpointed} gradient checkpointing")
        )
    rows.append(("fullest", need.total, "the first rows and the largest of the others"))
    for name, value, words in rows:
        table.add_row(name, f"{value / GIB:.1f}", words)
    return table


def _print_rl_work(settings: RlSettings, shape: EditorArchitecture, pixels: int, plan: GpuPlan) -> None:
    work = rl_work(settings, shape, pixels, plan.references)
    table = Table(title="an iteration")
    for heading in ("", "PFLOP", "GPU hours", "seconds"):
        table.add_column(heading, justify="right" if heading else "left")
    parts = ((f"{work.edits} edits", work.sampling), ("updates", work.updates))
    for name, operations in (*parts, ("together", work.sampling + work.updates)):
        hours = plan.hours(operations)
        table.add_row(name, f"{operations / 1e15:,.0f}", f"{hours:.2f}", f"{hours * 3600 / plan.gpus:.1f}")
    console = text_console()
    console.print(table)
    console.print(f"{settings.tasks} tasks, each process needs one; {plan.utilisation:.0%} of {plan.tflops:g} TFLOP/s")


def print_judge_plan(name: str, plan: GpuPlan, units: int) -> bool:
    """Print what a reward model's training needs, and say whether it fits.

    Args:
        name: A shipped preset's name or a YAML file.
        plan: The GPUs.
        units: Units of an epoch, to plan the work; 0: memory alone.

    Raises:
        EditLoopError: There is no such preset, or its model reads no reference images.
    """
    console, gpus = text_console(), plan.gpus
    chosen = _with_references(load_preset(name), plan.references)
    training = chosen.training
    if plan.micro_batch:
        training = training.model_validate(training.model_dump() | {"micro_batch": plan.micro_batch})
    memory = estimate_memory(chosen, training, gpus)
    total_weights, trained = trained_weights(chosen, training)
    micro, passes = training.accumulation(gpus, training.batch)
    load, step_units = pass_tokens(chosen, micro), min(training.batch, gpus * micro * passes)
    table = Table(title=f"{name} on {gpus} x {plan.memory:g} GiB, ZeRO-{training.zero_stage}, bf16")
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
    for heading, value, words in rows:
        table.add_row(heading, f"{value / GIB:.1f}", words)
    console.print(table)
    if units:
        work = training_work(chosen, training, gpus, units)
        hours = plan.hours(work.operations)
        console.print(
            f"work: {work.steps:,} steps, {work.operations:.2g} FLOP, {hours:,.0f} GPU hours, {hours / gpus:,.1f} h on "
            f"{gpus} GPUs at {plan.utilisation:.0%} of {plan.tflops:g} TFLOP/s"
        )
        console.print(f"traffic: {work.traffic / GIB:.1f} GiB sent by each GPU in a step")
        console.print(f"a checkpoint: {work.checkpoint / GIB:.1f} GiB")
    if memory.host:
        console.print(f"main memory for offloading: {gpus * memory.host / GIB:.0f} GiB in all")
    if _print_verdict(memory.total, plan):
        return True
    changes = suggest_changes(chosen, training, gpus, plan.memory * GIB)
    if changes:
        console.print(f"it would with {', '.join(changes)} under `training:`")
    else:
        larger = (2**power for power in range(11) if 2**power > gpus)
        enough = (count for count in larger if suggest_changes(chosen, training, count, plan.memory * GIB) is not None)
        remedy = next((f"{count} would do" for count in enough), "train an adapter")
        console.print(f"no setting is enough on {gpus} GPUs; {remedy}")
    return False


def _print_verdict(total: float, plan: GpuPlan) -> bool:
    """Print whether this many bytes fit on a GPU, and return it."""
    fits = total <= USABLE_SHARE * plan.memory * GIB
    if fits:
        text_console().print(f"fits: {total / GIB:.1f} of {plan.memory:g} GiB")
    else:
        text_console().print(
            f"does not fit: {total / GIB:.1f} GiB, of {plan.memory:g} GiB about {USABLE_SHARE:.0%} can be filled"
        )
    return fits


def _with_references(preset: Preset, references: int) -> Preset:
    """Return the preset with as many reference images in its units; 0 leaves them as they are."""
    if not references:
        return preset
    order = preset.settings.get("order", "paired") if preset.model == "edit-reward" else ""
    if "paired" in (order, preset.settings.get("pictures")):
        raise EditLoopError(
            f"--references {references}: a model of `paired` pictures reads source and edit as two frames of one "
            "image, and no reference images; leave it out, or plan for another preset."
        )
    return preset.model_copy(update={"load": preset.load.model_copy(update={"references": references})})
