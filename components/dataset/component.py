"""The KFP face of the dataset stage."""

from kfp import dsl

from infra.settings import DEFAULT_IMAGE


@dsl.component(base_image=DEFAULT_IMAGE, install_kfp_package=False)
def dataset(
    judgements: dsl.Input[dsl.Dataset],
    candidates: dsl.Input[dsl.Dataset],
    dataset: dsl.Output[dsl.Dataset],
    version: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    run_key: str,
    job_id: str,
    withdrawn_sha256: str = "",
    seed: int = 0,
    shard_megabytes: int = 256,
) -> None:
    """Turn judgements into preference pairs, split by shared pictures, and version them in DVC.

    Args:
        judgements: The experts' ratings.
        candidates: Tasks and candidate edits.
        dataset: Preference pairs, versioned.
        version: Where the dataset repository has the dataset.
        metrics: Figures for the UI.
        withdrawn_sha256: Content address of what is withdrawn of the judgements, so that a longer list is another step.
        seed: Seed of the split.
        shard_megabytes: Size of a parquet file, of its pictures.
        run_key: Runs of one key share one MLflow run; without a key the job's id is the key.
        job_id: KFP's id of this run.
    """
    from editloop.lineage.step import run_step

    run_step(
        "dataset",
        pipeline_run=run_key or job_id,
        inputs={"judgements": judgements, "candidates": candidates},
        outputs={"output": dataset, "version": version},
        parameters={"withdrawn_sha256": withdrawn_sha256, "seed": seed, "shard_megabytes": shard_megabytes},
        metrics=metrics,
    )
