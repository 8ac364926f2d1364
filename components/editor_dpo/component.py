"""KFP component of stage editor_dpo. Generated from declaration.py by `make generate`; do not edit."""

from kfp import dsl

from infra.settings import DEFAULT_IMAGE


@dsl.component(base_image=DEFAULT_IMAGE, install_kfp_package=False)
def editor_dpo(
    dataset: dsl.Input[dsl.Dataset],
    version: dsl.Input[dsl.Artifact],
    tuned: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
    page: dsl.Output[dsl.HTML],
    pipeline: str,
    parameters: dict,
) -> None:
    """Train the editor on the experts' pairs directly, by Diffusion-DPO.

    Args:
        dataset: Preference pairs that stage dataset wrote.
        version: The version that stage dataset wrote with them, a JSON file.
        tuned: The tuned editor and its curves.
        metrics: Figures for the UI.
        page: Page for the UI.
        pipeline: The pipeline that this is a step of.
        parameters: The stage's parameters: editor, preset, updates, learning_rate, processes, seed.
    """
    arguments = dict(locals())
    from components.editor_dpo.declaration import EDITOR_DPO
    from editloop.lineage.step import run_component

    run_component(EDITOR_DPO, arguments)
