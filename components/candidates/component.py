"""KFP component of stage candidates. Generated from declaration.py by `make generate`; do not edit."""

from kfp import dsl

from infra.settings import DEFAULT_IMAGE


@dsl.component(base_image=DEFAULT_IMAGE, install_kfp_package=False)
def candidates(
    edits: dsl.Input[dsl.Dataset],
    candidates: dsl.Output[dsl.Dataset],
    metrics: dsl.Output[dsl.Metrics],
    page: dsl.Output[dsl.HTML],
    pipeline: str,
    parameters: dict,
) -> None:
    """Make several edits of each source image and instruction, beside those that the input brings along.

    Args:
        edits: An edits.jsonl, or a folder of them, with the images.
        candidates: Tasks and candidate edits.
        metrics: Figures for the UI.
        page: Page for the UI.
        pipeline: The pipeline that this is a step of.
        parameters: The stage's parameters: editor, per_task, steps, seed.
    """
    arguments = dict(locals())
    from components.candidates.declaration import CANDIDATES
    from editloop.lineage.step import run_component

    run_component(CANDIDATES, arguments)
