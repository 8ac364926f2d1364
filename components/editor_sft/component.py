"""KFP component of stage editor_sft. Generated from declaration.py by `make generate`; do not edit."""

from kfp import dsl

from infra.settings import DEFAULT_IMAGE


@dsl.component(base_image=DEFAULT_IMAGE, install_kfp_package=False)
def editor_sft(
    curated: dsl.Input[dsl.Dataset],
    version: dsl.Input[dsl.Artifact],
    tuned: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
    page: dsl.Output[dsl.HTML],
    pipeline: str,
    parameters: dict,
) -> None:
    """Fine-tune the editor on curated edits by flow matching.

    Args:
        curated: The edits to learn, as stage curate wrote them.
        version: The version that stage curate wrote with them, a JSON file.
        tuned: The fine-tuned editor and its curves.
        metrics: Figures for the UI.
        page: Page for the UI.
        pipeline: The pipeline that this is a step of.
        parameters: The stage's parameters: editor, preset, updates, learning_rate, processes, seed.
    """
    arguments = dict(locals())
    from components.editor_sft.declaration import EDITOR_SFT
    from editloop.lineage.step import run_component

    run_component(EDITOR_SFT, arguments)
