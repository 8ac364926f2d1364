"""A turn of the loop with real services and small stand-ins for what trains and judges models: material for lineage.

Candidates, experts' answers, collect, dataset, registration and promotion are real; a model is a file of some bytes.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from PIL import Image

from annotation.campaigns.accounts import read_accounts
from annotation.campaigns.campaign import Campaign, load_pages, read_campaign
from annotation.campaigns.label_studio import LabelStudioApi
from annotation.campaigns.labelling import result_of
from annotation.campaigns.project import task_rows
from components.editor_eval.declaration import EditorEvalParameters
from components.reward.declaration import RewardParameters
from editloop.content import complete_folder, read_manifest, write_file, write_json
from editloop.data.picture_file import store_png
from editloop.data.vocabulary import Candidate, EditTask, candidate_id, task_id
from editloop.lineage import registry, tracking
from editloop.lineage.editor_registration import register_editor
from editloop.lineage.stage import StageParameters
from editloop.lineage.step import run_step
from infra.settings import service_settings
from pipelines.catalogue import STAGES

PEOPLE = ("ada", "bo", "chi")
REWARD, EDITOR = "loop-reward", "loop-editor"
"""Names in the registry: other tests' models are not in the way."""
BASE = "b" * 64


@dataclass(frozen=True)
class Loop:
    """Where a turn's folders are."""

    home: Path
    campaign: Campaign
    annotations: dict[tuple[str, str], int]
    """Label Studio's id of each answer, by annotator and page."""

    def __getitem__(self, name: str) -> Path:
        """The output of a stage."""
        return self.home / name

    @property
    def repo(self) -> Path:
        return self.home / "repo"

    @property
    def dataset_sha256(self) -> str:
        return str(read_manifest(self["dataset"])["sha256"])


def surroundings(home: Path) -> dict[str, str]:
    """The variables that name the loop's dataset repository, remote and model cache."""
    return {
        "EDITLOOP_DATASET_REPO": str(home / "repo"),
        "EDITLOOP_DATASET_REMOTE": str(home / "remote"),
        "EDITLOOP_CACHE": str(home / "cache"),
    }


def prepare(home: Path, *, tasks: int = 24, run: str = "turn", people: tuple[str, ...] = PEOPLE) -> Loop:
    """Run the turn below `home`, with three `people`; the environment must name the services and `surroundings`."""
    with standing_in("candidates", partial(draw, tasks=tasks)):
        step("candidates", run, {"edits": _edits(home / "edits")}, {"output": home / "candidates"})
    wanted = {"name": f"campaign of {home.name}", "annotators": list(people), "overlap": 2, "seed": 0}
    step("annotate", run, {"candidates": home / "candidates"}, {"output": home / "campaign"}, **wanted)
    campaign = read_campaign(home / "campaign")
    loop = Loop(home, campaign, answer(campaign, home / "campaign"))
    inputs = {"campaign": home / "campaign", "candidates": home / "candidates"}
    step("collect", run, inputs, {"output": home / "judgements"})
    inputs = {"judgements": home / "judgements", "candidates": home / "candidates"}
    step("dataset", run, inputs, {"output": home / "dataset", "version": home / "version.json"})
    return loop


def train(loop: Loop, dataset: Path, version: Path, model: Path, *, run: str = "turn") -> str:
    """A reward model on a dataset, measured, registered and promoted; returns its version in the registry."""
    with standing_in("reward", stand_in_reward):
        step("reward", run, {"dataset": dataset}, {"output": model}, seed=0)
    return promoted(loop, dataset, version, model, run=run)


def promoted(loop: Loop, dataset: Path, version: Path, model: Path, *, run: str) -> str:
    """A trained model measured, registered and promoted; returns its version in the registry."""
    evidence = loop.home / f"{model.name}-benchmark"
    with standing_in("benchmark", stand_in_benchmark):
        step("benchmark", run, {"dataset": dataset, "model": model}, {"output": evidence})
    inputs = {"model": model, "benchmark": evidence, "dataset": dataset, "version": version}
    step("promote", run, inputs, {"output": loop.home / f"{model.name}-promotion"}, name=REWARD)
    return str(registry.find_version(f"models:/{REWARD}@challenger").version)


def tune(loop: Loop, *, run: str = "tuning") -> str:
    """An editor that the champion taught, measured, registered and promoted; returns its version."""
    tuned, evidence = loop["tuned"], loop["evaluation"]
    edits = _edits(loop.home / "prompts", colour=7)
    with standing_in("editor_rl", stand_in_editor_rl):
        step("editor_rl", run, {"edits": edits}, {"output": tuned})
    with standing_in("editor_eval", stand_in_editor_eval):
        run_step(
            STAGES["editor_eval"],
            pipeline_run=run,
            inputs={"edits": edits, "editor": tuned},
            outputs={"output": evidence, "promotion": loop["editor-promotion.json"]},
            parameters={"name": EDITOR},
        )
    return str(registry.find_version(f"models:/{EDITOR}@challenger").version)


def step(stage: str, run: str, inputs: dict[str, Path], outputs: dict[str, Path], **parameters: Any) -> None:
    """A stage as a pipeline runs it."""
    run_step(STAGES[stage], pipeline_run=run, inputs=inputs, outputs=outputs, parameters=parameters)


@contextmanager
def standing_in(stage: str, function: Callable[..., dict[str, float]]) -> Iterator[None]:
    """`function` in a stage's place."""
    with patch(f"components.{stage}.stage.run_{stage}", function):
        yield


def draw(edits: Path, output: Path, parameters: StageParameters, *, tasks: int) -> dict[str, float]:
    """Tasks with three candidates: pictures of one colour each."""
    rng = np.random.default_rng(tasks)
    with complete_folder(output) as folder:

        def put() -> str:
            pixels = np.tile(rng.integers(0, 256, (1, 1, 3), dtype=np.uint8), (32, 32, 1))
            return store_png(Image.fromarray(pixels), folder / "images")

        rows = []
        for number in range(tasks):
            source, instruction = put(), "make the red circle blue"
            task = task_id(source, instruction)
            images = [put() for _ in range(3)]
            made = [Candidate(candidate_id=candidate_id(task, one), image=one, editor="some") for one in images]
            rows.append(
                EditTask(
                    task_id=task,
                    name=f"row-{number}",
                    instruction=instruction,
                    source=source,
                    target=put(),
                    candidates=tuple(made),
                )
            )
        write_file(folder / "tasks.jsonl", "".join(row.model_dump_json(by_alias=True) + "\n" for row in rows))
    return {"tasks": float(tasks)}


def answer(campaign: Campaign, folder: Path) -> dict[tuple[str, str], int]:
    """Every page answered by two annotators in turn, who agree."""
    settings = service_settings()
    accounts, rows, people = read_accounts(settings), task_rows(settings, campaign), campaign.annotators
    given = {}
    for number, key in enumerate(load_pages(folder)):
        for name in (people[number % 3], people[(number + 1) % 3]):
            levels = [{"if": 1 + (number + place) % 4, "vq": 1 + (number + 2 * place) % 4} for place in range(3)]
            body = {"result": result_of(levels), "lead_time": 9.0}
            api = LabelStudioApi(settings, accounts[name].token)
            reply = api.call("POST", f"/api/tasks/{rows[key][0].id}/annotations/", json=body)
            given[name, key] = int(reply["id"])
    return given


def stand_in_reward(dataset: Path, output: Path, parameters: RewardParameters) -> dict[str, float]:
    sha256 = str(read_manifest(dataset, check=True)["sha256"])
    with complete_folder(output, {"dataset_sha256": sha256, "base": "tiny", "base_sha256": BASE}) as folder:
        write_file(folder / "weights.safetensors", f"{sha256} {parameters.seed}")
        write_json(folder / "training.json", {"steps": []})
    return {"loss": 0.5}


def stand_in_benchmark(dataset: Path, model: Path, output: Path, parameters: StageParameters) -> dict[str, float]:
    digests = {
        f"{name}_sha256": read_manifest(path)["sha256"] for name, path in (("dataset", dataset), ("model", model))
    }
    suites = [{"suite": "heldout", "required": True, "folder": "", "sha256": "5" * 64, "units": 120}]
    data = {"dataset_sha256": digests["dataset_sha256"], "suites": suites, "judges": {}}
    return _evidence(output, "benchmark.json", digests, data=data)


def stand_in_editor_rl(edits: Path, output: Path, parameters: StageParameters) -> dict[str, float]:
    champion = registry.resolve_model(f"models:/{REWARD}@champion")
    assert champion is not None
    sha256 = str(read_manifest(champion)["sha256"])
    with complete_folder(output, {"editor": "tiny-editor", "judge": REWARD, "reward_sha256": sha256}) as folder:
        write_file(folder / "editor" / "weights.safetensors", sha256)
        write_json(folder / "training.json", {})
    return {"kl": 0.1}


def stand_in_editor_eval(
    edits: Path, editor: Path, output: Path, parameters: EditorEvalParameters, *, promotion: Path, pipeline_run: str
) -> dict[str, float]:
    said = {"judge": "edit-score 7", "verdict": "promote", "counts": True}
    figures = _evidence(output, "evaluation.json", {}, independent=[said])
    return figures | register_editor(output, editor, promotion, pipeline_run, name=parameters.name)


def _evidence(output: Path, name: str, facts: dict[str, Any], **more: Any) -> dict[str, float]:
    gate = {"verdict": "promote", "reasons": ["it is better."], "gate": "reward", "against": "its base", **more}
    with complete_folder(output, facts) as folder:
        write_json(folder / name, {"accuracy": 0.9})
        write_json(folder / "gate.json", gate)
        write_file(folder / "page.html", "<!doctype html><title>promote</title>")
    return {"accuracy": 0.9}


def _edits(folder: Path, colour: int = 3) -> Path:
    """A complete edits folder with one picture."""
    with complete_folder(folder) as made:
        Image.new("RGB", (32, 32), (colour, colour, colour)).save(made / "source.png")
        row = '{"id": "one", "instruction": "make it red", "source": "source.png"}\n'
        write_file(made / "edits.jsonl", row)
    return folder


@contextmanager
def environment(variables: dict[str, str]) -> Iterator[None]:
    """The variables set for the while."""
    with patch.dict(os.environ, variables):
        yield


@contextmanager
def another_tag(name: str, key: str) -> Iterator[None]:
    """A tag of the champion of a name is another one for the while."""
    version = registry.find_version(f"models:/{name}@champion")
    assert version is not None
    api = tracking.client()
    api.set_model_version_tag(name, version.version, key, "0" * 64)
    try:
        yield
    finally:
        api.set_model_version_tag(name, version.version, key, version.tags[key])
