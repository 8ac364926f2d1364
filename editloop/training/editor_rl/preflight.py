"""Checks before the processes of an online RL training start: adapter layers, image sizes, watching judges."""

from collections.abc import Sequence
from pathlib import Path

from editloop.content import MANIFEST, RESTORE, read_manifest
from editloop.data.edits_file import EditRow
from editloop.errors import EditLoopError
from editloop.evaluation.editors import ORACLE
from editloop.json_file import read_json_record
from editloop.models.edit_reward.model import SETTINGS as REWARD_SETTINGS
from editloop.models.edit_reward.settings import RewardSettings
from editloop.models.edit_score.checkpoints import SETTINGS as SCORE_SETTINGS
from editloop.models.edit_score.settings import EditScoreSettings
from editloop.models.editors.opening import outline_editor
from editloop.models.editors.sources import working_sizes
from editloop.models.editors.task_check import check_rows
from editloop.scoring.opening import find_local, is_served, open_judge
from editloop.training.editor_rl.reward_source import RewardSource
from editloop.training.editor_rl.scoring import check_judge_reads, check_size, check_targets, teaching_watcher
from editloop.training.editor_rl.settings import RlSettings


def check_job(
    practised: Sequence[EditRow],
    held_out: Sequence[EditRow],
    editor: Path,
    reward_source: RewardSource,
    settings: RlSettings,
    watch: Sequence[str],
    processes: int,
) -> None:
    """Check that a training can start and that its result would mean something. Takes little memory.

    Args:
        practised: Tasks to practise.
        held_out: Held-out tasks.
        editor: Folder of the editor to train.
        reward_source: The judge whose scores are the reward.
        settings: The training's settings.
        watch: Addresses of watching judges.
        processes: Number of ranks.

    Raises:
        EditLoopError: There are fewer tasks than processes, the editor cannot take a task, the judge does not read
            reference images that tasks have, no layer has an adapter target's name, images have another size than the
            reward model was trained on, or a judge cannot watch (`check_watcher`).
    """
    if len(practised) < processes:
        raise EditLoopError(
            f"{len(practised)} tasks to practise for {processes} processes: each needs one. Give more tasks."
        )
    outline = outline_editor(editor)
    check_rows(outline, [*practised, *held_out])
    if settings.adapter is not None:
        outline.adapter_layers(settings.targets or None)
    settings_file = reward_source.folder / REWARD_SETTINGS
    if settings_file.is_file():
        reward = read_json_record(settings_file, RewardSettings, RESTORE)
        for sizes in {*working_sizes(practised, outline, settings.area), *working_sizes(held_out, outline)}:
            check_size(reward_source.name, reward, sizes.source)
        check_judge_reads(reward_source.name, reward.order != "paired", [*practised, *held_out])
    score_file = reward_source.folder / SCORE_SETTINGS
    if score_file.is_file():
        pictures = read_json_record(score_file, EditScoreSettings, RESTORE).pictures
        check_judge_reads(reward_source.name, pictures != "paired", [*practised, *held_out])
    for address in watch:
        check_watcher(address, held_out, reward_source)


def check_watcher(address: str, held_out: Sequence[EditRow], reward_source: RewardSource) -> None:
    """Check that a judge can watch a training.

    Args:
        address: Address of the judge, or `oracle`.
        held_out: Held-out tasks.
        reward_source: The judge whose scores are the reward.

    Raises:
        EditLoopError: There is no such judge, it is the reward judge, or it is the oracle and tasks have no target.
    """
    if address == ORACLE:
        check_targets(held_out)
        return
    if is_served(address):
        version = open_judge(address).version
    else:
        folder = find_local(address).folder
        version = str(read_manifest(folder)["sha256"]) if (folder / MANIFEST).is_file() else ""
    if version == reward_source.sha256:
        raise teaching_watcher(address)
