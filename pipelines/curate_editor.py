"""curate-editor: from noisy edits to an editor that learnt the best of them, and has passed its gate, or has not."""

from typing import NamedTuple

from kfp import dsl

from components.curate.component import curate
from components.editor_eval.component import editor_eval
from components.editor_sft.component import editor_sft


class CurateEditorOutputs(NamedTuple):
    curated: dsl.Dataset
    tuned: dsl.Model
    evaluation: dsl.Artifact


@dsl.pipeline(
    name="curate-editor", description="Fine-tune the editor on the edits that the champion reward model keeps; gate it."
)
def curate_editor(
    edits_uri: str,
    heldout_uri: str,
    edits_sha256: str = "",
    heldout_sha256: str = "",
    judge: str = "models:/edit-reward@champion",
    order: str = "best",
    best: int = 0,
    threshold: float = 0.0,
    uncertainty: float = 0.0,
    most_missing: float = 0.1,
    editor: str = "tiny-editor",
    preset: str = "tiny",
    updates: int = 0,
    learning_rate: float = 0.0,
    processes: int = 2,
    samples: int = 1,
    steps: int = 8,
    gate: str = "editor",
    seed: int = 0,
    run_key: str = "",
) -> CurateEditorOutputs:
    """Keep the best of a set of noisy edits, let the editor learn them, and compare it with its base.

    Args:
        edits_uri: Edits folder to choose from: its candidates, or its targets where no row has candidates.
        heldout_uri: Edits folder to compare on.
        edits_sha256: Content address of the former.
        heldout_sha256: Content address of the latter.
        judge: The reward model that chooses, a registered one or the address of a server that serves it.
        order: best, or random (the control that shows what scores are worth).
        best: How many edits to keep, 0 for all.
        threshold: The lowest score to keep, 0 for none.
        uncertainty: How many standard deviations are taken off each score.
        most_missing: The largest share of scores that may be missing.
        editor: The editor to start from, a diffusers folder, a shipped name or models:/editor@champion.
        preset: How it is trained: a shipped preset, or a YAML file.
        updates: Updates of the editor, 0 for the preset's.
        learning_rate: Peak learning rate, 0 for the preset's.
        processes: Processes (GPUs) to train on.
        samples: Edits a task in the comparison.
        steps: Denoising steps in the comparison.
        gate: What is asked before an editor is promoted, a shipped gate or a YAML file.
        seed: Seed of the random order, batches and noise.
        run_key: Runs of one key are one piece of work; empty for a run of its own.
    """
    job_id = dsl.PIPELINE_JOB_ID_PLACEHOLDER
    noisy = dsl.importer(artifact_uri=edits_uri, artifact_class=dsl.Dataset, metadata={"sha256": edits_sha256})
    noisy.set_display_name("noisy edits")
    heldout = dsl.importer(artifact_uri=heldout_uri, artifact_class=dsl.Dataset, metadata={"sha256": heldout_sha256})
    heldout.set_display_name("held-out tasks")
    chosen = curate(
        noisy=noisy.output,
        judge=judge,
        order=order,
        best=best,
        threshold=threshold,
        uncertainty=uncertainty,
        most_missing=most_missing,
        seed=seed,
        run_key=run_key,
        job_id=job_id,
    )
    tuned = editor_sft(
        curated=chosen.outputs["curated"],
        version=chosen.outputs["version"],
        editor=editor,
        preset=preset,
        steps=updates,
        learning_rate=learning_rate,
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
        pipeline="curate-editor",
        run_key=run_key,
        job_id=job_id,
    )
    return CurateEditorOutputs(
        curated=chosen.outputs["curated"], tuned=tuned.outputs["tuned"], evaluation=compared.outputs["evaluation"]
    )
