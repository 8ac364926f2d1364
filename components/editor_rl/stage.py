"""The editor_rl stage: online RL of the editor with the champion reward model as its only teacher."""

from pathlib import Path
from typing import Any

from annotation.formats.edits_file import read_edits
from components.editor_rl.page import curves_page
from infra.content import MANIFEST, complete_folder, read_manifest
from infra.errors import EditLoopError
from infra.launch import launch


def editor_rl(
    edits: Path, output: Path, *, editor: str = "tiny-editor", reward: str = "models:/edit-reward@champion",
    iterations: int = 200, tasks: int = 16, members: int = 8, algorithm: str = "nft", learning_rate: float = 1e-3,
    processes: int = 2, seed: int = 0,
) -> dict[str, float]:  # fmt: skip
    """Improve `editor` on the prompts of an edits folder; rewards come from the registered champion, never another
    model.

    `algorithm`: `flow-grpo` or `nft` (DiffusionNFT). `output` gets `editor/` (a complete pipeline folder, adapter
    merged),
    `training.json` (curves) and `page.html`. Raises EditLoopError when there is no champion or the settings cannot
    work, before anything is trained.
    """
    from components.editor_rl.train import RlJob
    from infra.registry import resolve_model

    if not reward.startswith("models:/") or not reward.endswith("@champion"):
        raise EditLoopError(f"reward {reward!r}: only a registered champion may teach; give models:/NAME@champion.")
    if members < 2:
        raise EditLoopError(f"members is {members}: a group of one has no order; use 2 or more.")
    read_edits(edits)
    champion = resolve_model(reward)
    if champion is None:
        raise EditLoopError(f"{reward}: there is no champion. Train and promote a reward model first (train-reward).")
    facts: dict[str, Any] = {
        "editor": editor,
        "reward_sha256": read_manifest(champion)["sha256"],
        "algorithm": algorithm,
        "seed": seed,
    }
    if (Path(editor) / MANIFEST).is_file():
        facts["base_sha256"] = read_manifest(Path(editor))["sha256"]
    with complete_folder(output, facts) as out:
        job = RlJob(
            edits=edits.absolute(), output=out.absolute(), editor=editor, reward=str(champion), iterations=iterations,
            tasks=tasks, members=members, algorithm=algorithm, learning_rate=learning_rate, seed=seed,
        )  # fmt: skip
        path = out / "job.json"
        path.write_text(job.model_dump_json(indent=1))
        launch("components.editor_rl.train", [str(path)], processes=processes)
        path.unlink()
        curves = read_curves(out)
        (out / "page.html").write_text(curves_page(curves))
    first, last = curves["evaluations"][0], curves["evaluations"][-1]
    return {"reward_first": first["reward"], "reward_last": last["reward"], "kl": curves["steps"][-1]["kl"]}


def read_curves(folder: Path) -> dict[str, Any]:
    """The curves that the training wrote: {"steps": [...], "evaluations": [...]}."""
    import json

    curves: dict[str, Any] = json.loads((folder / "training.json").read_text())
    return curves
