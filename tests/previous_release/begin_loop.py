"""Begin a small loop with release 0.2.0, and stop it before the reward model is measured. README.md has the command.

Run this with the release's code, not with the present one; it uses what both have.
"""

import os
import sys
from pathlib import Path
from unittest.mock import patch

import numpy as np

import editloop
from annotation.simulated_experts import answer_campaign
from editloop.content import read_manifest, write_json
from editloop.lineage.step import run_step
from editloop.studies.tiny_models import edit_reward
from editloop.studies.tiny_models.backbone import tiny_config
from editloop.studies.world.scenes import write_edits
from editloop.studies.world.stand_ins import add_candidates
from infra.services import start_services, stop_services
from infra.settings import service_settings
from pipelines.catalogue import STAGES
from pipelines.environment import local_environment

INSTRUCTION, EDITS = "make the red circle blue", 4


def write_small_base(folder: Path) -> None:
    """Write an untrained base of an eighth of the shipped one's size."""
    with (
        patch.object(
            edit_reward, "tiny_config", lambda family, tokenizer, **_: tiny_config(family, tokenizer, width=32, heads=1)
        ),
        patch.object(edit_reward, "WIDTH", 32),
    ):
        edit_reward.build_tiny_reward().save(folder, {"made_by": "tests/previous_release"})


def score_noise(model: Path) -> list[float | None]:
    """Score edits that are noise, which any version draws alike."""
    rng = np.random.default_rng(0)
    source, *edits = (rng.integers(0, 256, (32, 32, 3), dtype=np.uint8) for _ in range(EDITS + 1))
    (scores,) = editloop.open_judge(str(model), device="cpu").judge([editloop.EditGroup(INSTRUCTION, source, edits)])
    return [score.overall for score in scores]


def main() -> None:
    """Run the stages from edits to the reward model, and leave a second campaign open."""
    out = Path(sys.argv[1]).absolute()

    def step(stage: str, inputs: list[str], outputs: list[str], **parameters: object) -> None:
        folders = {name: out / place for name, _, place in (each.partition("=") for each in inputs)}
        written = {name: out / place for name, _, place in (each.partition("=") for each in outputs)}
        run_step(STAGES[stage], pipeline_run="first", inputs=folders, outputs=written, parameters=parameters)
        print(stage, {name: read_manifest(path)["sha256"] for name, path in written.items() if path.is_dir()})

    for name, tasks, seed in (("edits", 24, 0), ("more-edits", 4, 1)):
        write_edits(out / "drawn" / name, tasks, seed)
        add_candidates(out / "drawn" / name, out / name, seed=seed, per_task=2)
    try:
        os.environ.update(start_services(out / "services").environment | local_environment(out))
        people = {"annotators": ["ada", "bo"], "overlap": 2}
        step("candidates", ["edits=edits"], ["output=candidates"], per_task=1, steps=2)
        step("annotate", ["candidates=candidates"], ["output=campaign"], name="closed campaign", **people)
        answer_campaign(out / "campaign", out / "candidates", settings=service_settings())
        step("collect", ["campaign=campaign", "candidates=candidates"], ["output=judgements"])
        inputs = ["judgements=judgements", "candidates=candidates"]
        step("dataset", inputs, ["output=preferences", "version=version.json"])
        write_small_base(out / "base")
        os.chdir(out)  # the model names its base by this path, which then holds elsewhere too
        step("reward", ["dataset=preferences"], ["output=reward"], base="base", epochs=1, processes=1)
        write_json(out / "scores.json", score_noise(out / "reward"))
        step("candidates", ["edits=more-edits"], ["output=more-candidates"], per_task=1, steps=2)
        step("annotate", ["candidates=more-candidates"], ["output=open-campaign"], name="open campaign", **people)
    finally:
        stop_services(out / "services")


if __name__ == "__main__":
    main()
