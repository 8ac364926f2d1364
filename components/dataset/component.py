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
    page: dsl.Output[dsl.HTML],
    pipeline: str,
    parameters: dict,
) -> None:
    """Turn judgements into preference pairs, split by shared images, and version them in DVC.

    Args:
        judgements: Judgements that stage collect wrote, or `editloop ratings import`.
        candidates: Tasks and candidate edits, as stage candidates wrote them.
        dataset: Preference pairs, versioned.
        version: The version in the dataset repository, a JSON file.
        metrics: Figures for the UI.
        page: Page for the UI.
        pipeline: The pipeline that this is a step of.
        parameters: The stage's parameters: withdrawn_sha256, seed, shard_megabytes.
    """
    arguments = dict(locals())
    from components.dataset.declaration import DATASET
    from editloop.lineage.step import run_component

    run_component(DATASET, arguments)
