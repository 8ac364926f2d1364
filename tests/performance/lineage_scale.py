"""Lineage over a long life: 10,000 runs in a real MLflow, 1,000 registered models, 1,000 versions of the dataset.

The store is filled below MLflow's server, in bulk; what is timed asks the server and git as `editloop trace` does.
"""

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

from editloop.content import sha256_json
from editloop.data.vocabulary import task_id
from editloop.lineage.tracking import EXPERIMENT
from infra.services import start_services, stop_services
from tests.performance.bench import peak_megabytes

RUNS, VERSIONS = 10_000, 1_000
LONGEST_SECONDS, MOST_MEGABYTES = 5, 1000
PEOPLE, TASKS = 40, 60
"""Annotators of all, and tasks of a version."""
STAGES = ("candidates", "annotate", "collect", "dataset", "reward", "benchmark", "promote", "editor_rl", "editor_eval")
HALF = VERSIONS // 2
"""Reward models; the others are editors, each taught by one."""


def digest(*words: object) -> str:
    """A sha256 that follows from words."""
    return sha256_json(list(words))


@contextmanager
def long_life() -> Iterator[None]:
    """The surroundings of a team that worked for years, as environment variables name them."""
    with tempfile.TemporaryDirectory(prefix="editloop-lineage-") as temporary:
        home, repo = Path(temporary) / "services", Path(temporary) / "dataset"
        services = start_services(home, label_studio=False)
        try:
            fill_dataset_repo(repo)
            fill_mlflow(f"sqlite:///{home / 'mlflow' / 'mlflow.db'}")
            with patch.dict(os.environ, services.environment | {"EDITLOOP_DATASET_REPO": str(repo)}):
                yield
        finally:
            stop_services(home)


def fill_dataset_repo(repo: Path) -> None:
    """A git repository with a tag a version, its lineage files as the dataset stage writes them, without content."""
    import json

    from editloop.datasets.repository import CONTENTS, LINEAGE, tag_of

    stream = []
    for number in range(VERSIONS):
        sha256 = digest("dataset", number)
        lineage = {
            "sha256": sha256,
            "annotators": [f"person-{(number + k) % PEOPLE}" for k in range(4)],
            "judgements_sha256": digest("judgements", number),
            "candidates_sha256": digest("candidates", number),
            "parent": None,
        }
        pictures = [digest("picture", number + k) for k in range(TASKS)]
        tasks = [task_id(picture, "make it red") for picture in pictures]
        texts = {
            LINEAGE: json.dumps(lineage, indent=2) + "\n",
            CONTENTS: json.dumps({"task_ids": sorted(tasks), "images": sorted(pictures)}, indent=0) + "\n",
        }
        stream.append(f"commit refs/heads/main\nmark :{number + 1}\ncommitter e <e@e> {1700000000 + number} +0000\n")
        stream.append("data 1\nv\n" + (f"from :{number}\n" if number else ""))
        for name, text in texts.items():
            stream.append(f"M 644 inline {name}\ndata {len(text.encode())}\n{text}\n")
        stream.append(f"tag {tag_of(sha256)}\nfrom :{number + 1}\ntagger e <e@e> {1700000000 + number} +0000\n")
        stream.append(f"data {len(sha256)}\n{sha256}\n")
    subprocess.run(["git", "init", "--quiet", "--initial-branch", "main", str(repo)], check=True)
    subprocess.run(["git", "fast-import", "--quiet"], cwd=repo, input="".join(stream), text=True, check=True)


def fill_mlflow(store: str, count: int = RUNS, half: int = HALF) -> None:
    """Runs of all stages and versions of both models, in MLflow's own tables.

    Args:
        store: Address of MLflow's database.
        count: Number of runs.
        half: Versions of each model.
    """
    import mlflow.store.model_registry.dbmodels.models as registry
    import mlflow.store.tracking.dbmodels.models as tracking
    from sqlalchemy import create_engine, insert
    from sqlalchemy.orm import Session

    with Session(create_engine(store)) as session:
        experiment = session.query(tracking.SqlExperiment).filter_by(name=EXPERIMENT).one_or_none()
        if experiment is None:
            experiment = tracking.SqlExperiment(
                name=EXPERIMENT,
                artifact_location="mlflow-artifacts:/1",
                lifecycle_stage="active",
                creation_time=0,
                last_update_time=0,
            )
            session.add(experiment)
            session.flush()
        number = experiment.experiment_id
        runs, tags, metrics, latest = [], [], [], []
        for place in range(count):
            run = f"{place:032x}"
            runs.append(
                {
                    "run_uuid": run,
                    "user_id": "team",
                    "name": STAGES[place % len(STAGES)],
                    "experiment_id": number,
                    "status": "FINISHED",
                    "lifecycle_stage": "active",
                    "start_time": 10**12 + place,
                    "end_time": 10**12 + place + 1,
                    "artifact_uri": f"mlflow-artifacts:/1/{run}/artifacts",
                }
            )
            tags += [{"key": key, "value": value, "run_uuid": run} for key, value in run_tags(place).items()]
            for metric in ("seconds", "loss", "accuracy"):
                point = {"key": metric, "value": 1.0, "timestamp": 10**12, "step": 0, "is_nan": False, "run_uuid": run}
                metrics.append(point)
                latest.append(point)
        for table, rows in (
            (tracking.SqlRun, runs),
            (tracking.SqlTag, tags),
            (tracking.SqlMetric, metrics),
            (tracking.SqlLatestMetric, latest),
        ):
            session.execute(insert(table), rows)
        for name in ("edit-reward", "editor"):
            session.execute(insert(registry.SqlRegisteredModel), [{"name": name, "creation_time": 0}])
            versions = range(1, half + 1)
            session.execute(
                insert(registry.SqlModelVersion),
                [
                    {
                        "name": name,
                        "version": version,
                        "creation_time": 0,
                        "user_id": "team",
                        "source": "mlflow-artifacts:/1/model",
                        "run_id": f"{version:032x}",
                        "status": "READY",
                        "current_stage": "None",
                    }
                    for version in versions
                ],
            )
            marks = [
                {"name": name, "version": version, "key": key, "value": value}
                for version in versions
                for key, value in version_tags(name, version).items()
            ]
            session.execute(insert(registry.SqlModelVersionTag), marks)
            champion = {"name": name, "alias": "champion", "version": half}
            session.execute(insert(registry.SqlRegisteredModelAlias), [champion])
        session.commit()


def run_tags(place: int) -> dict[str, str]:
    """The tags of one stage's run in pipeline run `place` // 9."""
    turn, stage = divmod(place, len(STAGES))
    dataset = digest("dataset", turn % VERSIONS)
    found = {
        "editloop.stage": STAGES[stage],
        "editloop.step": digest("step", place)[:16],
        "editloop.pipeline_run": f"turn-{turn}",
        "editloop.output.output": digest(STAGES[stage], turn),
        "editloop.input.dataset": dataset,
        "editloop.campaign_key": f"campaign-{turn}",
        "mlflow.parentRunId": f"{turn:032x}",
        "mlflow.source.git.commit": "0" * 40,
    }
    if STAGES[stage] == "dataset":
        found["editloop.output.output"] = dataset
    if STAGES[stage] == "collect":
        found["editloop.output.output"] = digest("judgements", turn % VERSIONS)
    if STAGES[stage] == "editor_rl":
        found["editloop.input.edits"] = digest("edits", turn % 5)
    return found


def version_tags(name: str, version: int) -> dict[str, str]:
    """The tags of one registered version."""
    found = {"editloop.sha256": digest(name, version), "editloop.verdict": "promote", "editloop.pipeline_run": "turn"}
    if name == "editor":
        return found | {"editloop.reward": f"models:/edit-reward/{version}"}
    return found | {"editloop.dataset_sha256": digest("dataset", 2 * version)}


def tracing() -> dict[str, float]:
    """The slowest question: both ways, by person, picture, dataset and model, each asked anew."""
    from editloop.lineage.trace import trace_annotator, trace_dataset, trace_image, trace_model

    with long_life():
        slowest = 0.0
        for ask, what in (
            (trace_annotator, "person-7"),
            (trace_image, digest("picture", 500)),
            (trace_dataset, digest("dataset", 500)),
            (trace_model, "models:/edit-reward@champion"),
            (trace_model, "models:/editor@champion"),
        ):
            begun = time.perf_counter()
            found = ask(what)
            seconds = time.perf_counter() - begun
            slowest = max(slowest, seconds)
            counts = f"{len(found.datasets)} datasets, {len(found.models)} models"
            print(f"{found.kind:<10} {seconds:5.2f} s   {counts}")
            assert found.models or what.startswith("models:/editor"), what
        return {"seconds": slowest, "megabytes": peak_megabytes()}
