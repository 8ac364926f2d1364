"""KFP component of stage editor_rl. Generated from declaration.py by `make generate`; do not edit."""

from kfp import dsl

from infra.settings import DEFAULT_IMAGE


@dsl.component(base_image=DEFAULT_IMAGE, install_kfp_package=False)
def editor_rl(
    prompts: dsl.Input[dsl.Dataset],
    tuned: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
    page: dsl.Output[dsl.HTML],
    run_key: str,
    job_id: str,
    editor: str = "tiny-editor",
    reward: str = "models:/edit-reward@champion",
    preset: str = "tiny",
    iterations: int = 0,
    tasks: int = 0,
    members: int = 0,
    learning_rate: float = 0.0,
    watch: str = "",
    processes: int = 2,
    seed: int = 0,
) -> None:
    """Improve the editor by online RL with the champion reward model.

    Args:
        prompts: Edits folder of the tasks to practise on.
        tuned: The tuned editor and its curves.
        metrics: Figures for the UI.
        page: Page for the UI.
        run_key: Runs of one key share one MLflow run; without a key the job's id is the key.
        job_id: KFP's id of this run.
        editor: The editor to start from: a diffusers folder, a shipped name, or models:/editor@champion.
        reward: The reward model that scores the edits: a champion, or the address of a server that serves it.
        preset: Preset of the training: one shipped with `editloop.training.editor_rl`, or the path of a YAML file.
        iterations: Updates of the editor; 0 for the preset's.
        tasks: Tasks per update; 0 for the preset's.
        members: Edits per task, which are compared with each other; 0 for the preset's.
        learning_rate: Learning rate; 0 for the preset's.
        watch: Addresses of judges that do not give rewards, separated by spaces; `oracle` where every task has a target. Empty for none. The training stops when their scores fall while the reward rises, and its best state is kept.
        processes: Processes (GPUs) that share the training.
        seed: Seed of prompts and noise.
    """
    arguments = dict(locals())
    from components.editor_rl.declaration import EDITOR_RL
    from editloop.lineage.step import run_component

    run_component(EDITOR_RL, arguments)
