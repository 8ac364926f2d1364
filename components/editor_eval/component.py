"""The KFP face of the editor_eval stage."""

from kfp import dsl

from infra.settings import DEFAULT_IMAGE


@dsl.component(base_image=DEFAULT_IMAGE, install_kfp_package=False)
def editor_eval(
    heldout: dsl.Input[dsl.Dataset],
    tuned: dsl.Input[dsl.Model],
    evaluation: dsl.Output[dsl.Artifact],
    promotion: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    page: dsl.Output[dsl.HTML],
    run_key: str,
    job_id: str,
    base: str = "tiny-editor",
    samples: int = 1,
    steps: int = 8,
    gate: str = "editor",
    seed: int = 0,
    pipeline: str = "improve-editor",
) -> None:
    """Compare the tuned editor with its base on held-out tasks, and register it as its gate says.

    Args:
        heldout: Edits folder that the editor never saw.
        tuned: The tuned editor and its curves.
        evaluation: Base against tuned editor, and the gate's verdict.
        promotion: What the registry did.
        metrics: Figures for the UI.
        page: Page for the UI.
        base: The editor before.
        samples: Edits a task.
        steps: Denoising steps.
        gate: What is asked before an editor is promoted, a shipped gate or a YAML file.
        seed: Seed of the noise.
        pipeline: The pipeline that this is a step of.
        run_key: Runs of one key share one MLflow run; without a key the job's id is the key.
        job_id: KFP's id of this run.
    """
    from pathlib import Path

    from editloop.lineage.editor_registration import register_editor
    from editloop.lineage.step import run_step

    run_step(
        "editor_eval",
        pipeline_run=run_key or job_id,
        inputs={"edits": heldout, "editor": tuned},
        outputs={"output": evaluation},
        parameters={"base": base, "samples": samples, "steps": steps, "gate": gate, "seed": seed},
        pipeline=pipeline,
        metrics=metrics,
        page=page,
        then=lambda run: register_editor(Path(evaluation.path), Path(tuned.path), Path(promotion.path), run),
    )
