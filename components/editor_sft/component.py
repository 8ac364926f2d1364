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
    run_key: str,
    job_id: str,
    editor: str = "tiny-editor",
    preset: str = "tiny",
    updates: int = 0,
    learning_rate: float = 0.0,
    processes: int = 2,
    seed: int = 0,
) -> None:
    """Fine-tune the editor on curated edits by flow matching.

    Args:
        curated: The edits to learn, as stage curate wrote them.
        version: The version that stage curate wrote with them, a JSON file.
        tuned: The fine-tuned editor and its curves.
        metrics: Figures for the UI.
        page: Page for the UI.
        run_key: Runs of one key share one MLflow run; without a key the job's id is the key.
        job_id: KFP's id of this run.
        editor: The editor to start from: a diffusers folder, a shipped name, or models:/editor@champion.
        preset: Preset of the training: one shipped with `editloop.training.editor_sft`, or the path of a YAML file.
        updates: Updates of the editor; 0 for the preset's.
        learning_rate: Peak learning rate; 0 for the preset's.
        processes: Processes (GPUs) that share the training.
        seed: Seed of batches and noise.
    """
    arguments = dict(locals())
    from components.editor_sft.declaration import EDITOR_SFT
    from editloop.lineage.step import run_component

    run_component(EDITOR_SFT, arguments)
