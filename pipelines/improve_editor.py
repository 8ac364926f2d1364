"""improve-editor: from the champion reward model to an editor that has passed its gate, or has not."""

from typing import NamedTuple

from kfp import dsl

from components.editor_eval.component import editor_eval
from components.editor_rl.component import editor_rl


class ImproveEditorOutputs(NamedTuple):
    tuned: dsl.Model
    evaluation: dsl.Artifact


@dsl.pipeline(name="improve-editor", description="Tune the editor with the champion reward model and gate it.")
def improve_editor(
    prompts_uri: str,
    heldout_uri: str,
    prompts_sha256: str = "",
    heldout_sha256: str = "",
    editor: str = "tiny-editor",
    reward: str = "models:/edit-reward@champion",
    preset: str = "tiny",
    iterations: int = 0,
    tasks: int = 0,
    members: int = 0,
    learning_rate: float = 0.0,
    watch: str = "",
    processes: int = 2,
    samples: int = 1,
    steps: int = 8,
    gate: str = "editor",
    seed: int = 0,
    run_key: str = "",
) -> ImproveEditorOutputs:
    """Let the editor learn from the reward model, then compare it with its base on tasks that neither has seen.

    Args:
        prompts_uri: Edits folder to practise on.
        heldout_uri: Edits folder to compare on.
        prompts_sha256: Content address of the former.
        heldout_sha256: Content address of the latter.
        editor: The editor to start from, a diffusers folder, a shipped name or models:/editor@champion.
        reward: The reward model that teaches: a champion, or the address of a server that serves it.
        preset: How it is trained: a shipped preset, or a YAML file.
        iterations: Updates of the editor, 0 for the preset's.
        tasks: Tasks an update, 0 for the preset's.
        members: Edits a task, compared with each other; 0 for the preset's.
        learning_rate: Learning rate, 0 for the preset's.
        watch: Judges that do not teach, with spaces between; training is stopped when they fall while the reward rises.
        processes: Processes (GPUs) to train on.
        samples: Edits a task in the comparison.
        steps: Denoising steps in the comparison.
        gate: What is asked before an editor is promoted, a shipped gate or a YAML file.
        seed: Seed of prompts and noise.
        run_key: Runs of one key are one piece of work; empty for a run of its own.
    """
    job_id = dsl.PIPELINE_JOB_ID_PLACEHOLDER
    prompts = dsl.importer(artifact_uri=prompts_uri, artifact_class=dsl.Dataset, metadata={"sha256": prompts_sha256})
    prompts.set_display_name("prompts")
    heldout = dsl.importer(artifact_uri=heldout_uri, artifact_class=dsl.Dataset, metadata={"sha256": heldout_sha256})
    heldout.set_display_name("held-out tasks")
    tuned = editor_rl(
        prompts=prompts.output,
        editor=editor,
        reward=reward,
        preset=preset,
        iterations=iterations,
        tasks=tasks,
        members=members,
        learning_rate=learning_rate,
        watch=watch,
        processes=processes,
        seed=seed,
        run_key=run_key,
        job_id=job_id,
    )
    compared = editor_eval(
        heldout=heldout.output,
        tuned=tuned.outputs["tuned"],
        base=editor,
        samples=samples,
        steps=steps,
        gate=gate,
        seed=seed,
        run_key=run_key,
        job_id=job_id,
    )
    return ImproveEditorOutputs(tuned=tuned.outputs["tuned"], evaluation=compared.outputs["evaluation"])
