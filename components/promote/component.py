"""The KFP face of the promote stage."""

from kfp import dsl

from infra.settings import DEFAULT_IMAGE


@dsl.component(base_image=DEFAULT_IMAGE, install_kfp_package=False)
def promote(
    model: dsl.Input[dsl.Model],
    benchmark: dsl.Input[dsl.Artifact],
    dataset: dsl.Input[dsl.Dataset],
    version: dsl.Input[dsl.Artifact],
    promotion: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    run_key: str,
    job_id: str,
    name: str = "",
) -> None:
    """Register the model as challenger, and as champion when its gate says so.

    Args:
        model: The trained reward model.
        benchmark: Held-out accuracy and the gate's verdict.
        dataset: Preference pairs, versioned.
        version: Where the dataset repository has the dataset.
        promotion: What the registry did.
        metrics: Figures for the UI.
        name: Name in the registry; empty for that of the model's kind, edit-reward or edit-score.
        run_key: Runs of one key share one MLflow run; without a key the job's id is the key.
        job_id: KFP's id of this run.
    """
    from editloop.lineage.step import run_step

    run_step(
        "promote",
        pipeline_run=run_key or job_id,
        inputs={"model": model, "benchmark": benchmark, "dataset": dataset, "version": version},
        outputs={"output": promotion},
        parameters={"name": name, "pipeline_run": run_key or job_id},
        metrics=metrics,
    )
