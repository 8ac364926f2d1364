"""What is checked before the processes of a training start and any memory is taken: layers, sizes, who watches."""

from collections.abc import Sequence
from pathlib import Path

from annotation.formats.edits_file import EditRow
from components.editor_rl.prompts import Prompts
from components.editor_rl.scoring import ORACLE, check_size
from components.editor_rl.settings import RlSettings
from components.editor_rl.teacher import Teacher
from components.editors.opening import outline_editor
from components.judges.opening import find_local, is_served, open_judge
from components.reward.model import SETTINGS as REWARD_SETTINGS
from components.reward.settings import RewardSettings
from infra.content import MANIFEST, read_manifest
from infra.errors import EditLoopError


def check_job(
    practised: Sequence[EditRow], held_out: Sequence[EditRow], editor: Path, teacher: Teacher, settings: RlSettings,
    watch: Sequence[str], processes: int,
) -> None:  # fmt: skip
    """EditLoopError where the training could not begin or would not mean anything: fewer tasks than processes, no layer
    of an adapter's name, pictures of another size than the reward was trained on, a judge that cannot watch."""
    if len(practised) < processes:
        raise EditLoopError(
            f"{len(practised)} tasks to practise for {processes} processes: each needs one. Give more tasks."
        )
    outline = outline_editor(editor)
    if settings.train == "lora":
        outline.adapted(settings.targets or None)
    told = teacher.folder / REWARD_SETTINGS
    if told.is_file():
        reward = RewardSettings.model_validate_json(told.read_text())
        for size in set(Prompts(practised, outline, kept=1, seed=0).sizes):
            check_size(teacher.name, reward, size)
    for address in watch:
        check_watcher(address, held_out, teacher)


def check_watcher(address: str, held_out: Sequence[EditRow], teacher: Teacher) -> None:
    """EditLoopError where a judge is not there, is the one that teaches, or is the oracle of tasks without targets."""
    if address == ORACLE:
        without = [row.id for row in held_out if row.target is None]
        if without:
            raise EditLoopError(
                f"watch {ORACLE}: {len(without)} held-out tasks have no `target`, {without[0]!r} first; give each one, "
                "or watch with another judge."
            )
        return
    if is_served(address):
        version = open_judge(address).version
    else:
        folder = find_local(address).folder
        version = str(read_manifest(folder)["sha256"]) if (folder / MANIFEST).is_file() else ""
    if version == teacher.sha256:
        raise EditLoopError(
            f"watch {address}: it is the judge that teaches. What is learnt from it looks good to it whatever it is: "
            "name another one."
        )
