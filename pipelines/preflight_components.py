"""KFP components of the pipelines' first steps. Generated from catalogue.py by `make generate`; do not edit."""

from typing import NamedTuple

from kfp import dsl

from infra.settings import DEFAULT_IMAGE


@dsl.component(base_image=DEFAULT_IMAGE, install_kfp_package=False)
def collect_preferences_preflight(
    annotators: list,
    campaign: str,
    edits: str,
    image_editor: str = "tiny-editor",
    lead: str = "",
    overlap: int = 2,
    settings: str = "",
) -> NamedTuple(  # type: ignore[valid-type]  # KFP's way to name outputs
    "Outputs",
    [
        ("edits_uri", str),
        ("edits_sha256", str),
        ("candidates", dict),
        ("annotate", dict),
    ],
):
    """Check the settings of collect-preferences, and find its inputs.

    Args:
        annotators: Account names of the experts.
        campaign: Name of the campaign in Label Studio.
        edits: Name of an edits folder in EDITLOOP_EDITS, or its address: a path here, s3:// on a cluster.
        image_editor: The editor: a diffusers folder, a shipped name, models:/editor@champion, or in a run form the name of a registered editor, which means its champion.
        lead: Account name of the lead, who decides tasks in conflict; empty for none.
        overlap: Number of experts who judge each task; agreement needs two or more.
        settings: Everything else, as YAML: parameters by stage ({reward: {epochs: 8}}), `seed` for all stages, and `run_key`: runs of one key are one piece of work.
    """
    arguments = dict(locals())
    from editloop.lineage.step import end_in_one_line
    from pipelines.preflight import preflight_outputs

    with end_in_one_line():
        return preflight_outputs("collect-preferences", arguments)


@dsl.component(base_image=DEFAULT_IMAGE, install_kfp_package=False)
def train_reward_preflight(
    campaign: str,
    gate: str = "reward",
    preset: str = "editreward-tiny",
    processes: int = 2,
    registered_name: str = "",
    settings: str = "",
) -> NamedTuple(  # type: ignore[valid-type]  # KFP's way to name outputs
    "Outputs",
    [
        ("candidates_uri", str),
        ("candidates_sha256", str),
        ("campaign_uri", str),
        ("campaign_sha256", str),
        ("collect", dict),
        ("dataset", dict),
        ("reward", dict),
        ("benchmark", dict),
        ("promote", dict),
    ],
):
    """Check the settings of train-reward, and find its inputs.

    Args:
        campaign: Name or key of a complete campaign.
        gate: The gate that a model must pass to be promoted: a shipped one (reward, open), or the path of a YAML file.
        preset: Preset of model and training: a shipped name (`editloop plan` lists them), or the path of a YAML file.
        processes: Processes (GPUs) that share the training.
        registered_name: Name in the registry; empty for that of the model's kind, edit-reward or edit-score.
        settings: Everything else, as YAML: parameters by stage ({reward: {epochs: 8}}), `seed` for all stages, and `run_key`: runs of one key are one piece of work.
    """
    arguments = dict(locals())
    from editloop.lineage.step import end_in_one_line
    from pipelines.preflight import preflight_outputs

    with end_in_one_line():
        return preflight_outputs("train-reward", arguments)


@dsl.component(base_image=DEFAULT_IMAGE, install_kfp_package=False)
def curate_editor_preflight(
    edits: str,
    edits_held_out: str,
    gate: str = "editor",
    image_editor: str = "tiny-editor",
    judge: str = "models:/edit-reward@champion",
    preset: str = "tiny",
    registered_name: str = "editor",
    settings: str = "",
) -> NamedTuple(  # type: ignore[valid-type]  # KFP's way to name outputs
    "Outputs",
    [
        ("edits_uri", str),
        ("edits_sha256", str),
        ("heldout_uri", str),
        ("heldout_sha256", str),
        ("curate", dict),
        ("editor_sft", dict),
        ("editor_eval", dict),
    ],
):
    """Check the settings of curate-editor, and find its inputs.

    Args:
        edits: Edits folder, by name or address: its candidates are chosen from, or else its targets.
        edits_held_out: Edits folder to compare on, by name or address.
        gate: The gate that an editor must pass to be promoted: a shipped one (editor, open), or the path of a YAML file.
        image_editor: The editor to start from: a diffusers folder, a shipped name, models:/editor@champion, or in a run form the name of a registered editor, which means its champion.
        judge: The reward model that chooses: a registered one, or the address of a server that serves it.
        preset: Preset of the training: one shipped with `editloop.training.editor_sft`, or the path of a YAML file.
        registered_name: Name in the registry.
        settings: Everything else, as YAML: parameters by stage ({reward: {epochs: 8}}), `seed` for all stages, and `run_key`: runs of one key are one piece of work.
    """
    arguments = dict(locals())
    from editloop.lineage.step import end_in_one_line
    from pipelines.preflight import preflight_outputs

    with end_in_one_line():
        return preflight_outputs("curate-editor", arguments)


@dsl.component(base_image=DEFAULT_IMAGE, install_kfp_package=False)
def learn_from_pairs_preflight(
    campaign: str,
    edits_held_out: str,
    gate: str = "editor",
    image_editor: str = "tiny-editor",
    preset: str = "tiny",
    registered_name: str = "editor",
    settings: str = "",
) -> NamedTuple(  # type: ignore[valid-type]  # KFP's way to name outputs
    "Outputs",
    [
        ("candidates_uri", str),
        ("candidates_sha256", str),
        ("campaign_uri", str),
        ("campaign_sha256", str),
        ("heldout_uri", str),
        ("heldout_sha256", str),
        ("collect", dict),
        ("dataset", dict),
        ("editor_dpo", dict),
        ("editor_eval", dict),
    ],
):
    """Check the settings of learn-from-pairs, and find its inputs.

    Args:
        campaign: Name or key of a complete campaign.
        edits_held_out: Edits folder to compare on, by name or address.
        gate: The gate that an editor must pass to be promoted: a shipped one (editor, open), or the path of a YAML file.
        image_editor: The editor to start from: a diffusers folder, a shipped name, models:/editor@champion, or in a run form the name of a registered editor, which means its champion.
        preset: Preset of the training: one shipped with `editloop.training.editor_dpo`, or the path of a YAML file.
        registered_name: Name in the registry.
        settings: Everything else, as YAML: parameters by stage ({reward: {epochs: 8}}), `seed` for all stages, and `run_key`: runs of one key are one piece of work.
    """
    arguments = dict(locals())
    from editloop.lineage.step import end_in_one_line
    from pipelines.preflight import preflight_outputs

    with end_in_one_line():
        return preflight_outputs("learn-from-pairs", arguments)


@dsl.component(base_image=DEFAULT_IMAGE, install_kfp_package=False)
def improve_editor_preflight(
    edits_held_out: str,
    edits_to_practise: str,
    gate: str = "editor",
    image_editor: str = "tiny-editor",
    preset: str = "tiny",
    registered_name: str = "editor",
    reward: str = "models:/edit-reward@champion",
    settings: str = "",
) -> NamedTuple(  # type: ignore[valid-type]  # KFP's way to name outputs
    "Outputs",
    [
        ("prompts_uri", str),
        ("prompts_sha256", str),
        ("heldout_uri", str),
        ("heldout_sha256", str),
        ("editor_rl", dict),
        ("editor_eval", dict),
    ],
):
    """Check the settings of improve-editor, and find its inputs.

    Args:
        edits_held_out: Edits folder to compare on, by name or address.
        edits_to_practise: Edits folder to practise on, by name or address.
        gate: The gate that an editor must pass to be promoted: a shipped one (editor, open), or the path of a YAML file.
        image_editor: The editor to start from: a diffusers folder, a shipped name, models:/editor@champion, or in a run form the name of a registered editor, which means its champion.
        preset: Preset of the training: one shipped with `editloop.training.editor_rl`, or the path of a YAML file.
        registered_name: Name in the registry.
        reward: The reward model that scores the edits: a champion, or the address of a server that serves it.
        settings: Everything else, as YAML: parameters by stage ({reward: {epochs: 8}}), `seed` for all stages, and `run_key`: runs of one key are one piece of work.
    """
    arguments = dict(locals())
    from editloop.lineage.step import end_in_one_line
    from pipelines.preflight import preflight_outputs

    with end_in_one_line():
        return preflight_outputs("improve-editor", arguments)
