"""KFP component of stage dataset. Generated from declaration.py by `make generate`; do not edit."""

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
    """Turn judgements into preference pairs, split by shared images, and version them in DVC.

    Args:
        judgements: Judgements that stage collect wrote, or `editloop ratings import`.
        candidates: Tasks and candidate edits, as stage candidates wrote them.
        dataset: Preference pairs, versioned.
        version: The version in the dataset repository, a JSON file.
        metrics: Figures for the UI.
        run_key: Runs of one key share one MLflow run; without a key the job's id is the key.
        job_id: KFP's id of this run.
        withdrawn_sha256: Content address of the withdrawals that concern the judgements. It only keeps a cached step from being reused after a further withdrawal: the list itself is in the dataset repository, and is always read as it is now.
        seed: Seed of the splits.
        shard_megabytes: Largest size of a shard's images, in MiB.
    """
    arguments = dict(locals())
    from components.dataset.declaration import DATASET
    from editloop.lineage.step import run_component

    run_component(DATASET, arguments)
