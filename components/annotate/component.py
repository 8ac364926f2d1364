"""KFP component of stage annotate. Generated from declaration.py by `make generate`; do not edit."""

from kfp import dsl

from infra.settings import DEFAULT_IMAGE


@dsl.component(base_image=DEFAULT_IMAGE, install_kfp_package=False)
def annotate(
    candidates: dsl.Input[dsl.Dataset],
    campaign: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    page: dsl.Output[dsl.HTML],
    pipeline: str,
    parameters: dict,
) -> None:
    """Open a campaign in Label Studio, without waiting for the experts.

    Args:
        candidates: Tasks and candidate edits, as stage candidates wrote them.
        campaign: The open campaign.
        metrics: Figures for the UI.
        page: Page for the UI.
        pipeline: The pipeline that this is a step of.
        parameters: The stage's parameters: name, annotators, overlap, lead, candidates_per_task, axes, gold_share, gold_pages, gold_answers, repeat_share, repeat_pages, training_pages, training_passing, training_required, norming_pages, guidelines, alpha_if, alpha_vq, seed, follow_up.
    """
    arguments = dict(locals())
    from components.annotate.declaration import ANNOTATE
    from editloop.lineage.step import run_component

    run_component(ANNOTATE, arguments)
