"""An MLflow of many years: 10,000 runs, 1,000 versions, 1,200 promotions, 150 models, and one real turn among them.

The turn's chain is real: campaign, answers, dataset, models, promotions. The store is filled below MLflow's server, in
bulk, with rows as stages write them. Every look-up must find all of what is there, beyond a page of a thousand or a
hundred.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

from annotation.campaigns.record import read_records
from editloop.lineage import registry, tracking
from editloop.lineage.family import read_models
from editloop.lineage.trace import trace_annotator, trace_dataset, trace_image, trace_model
from infra.services import Services, start_services, stop_services
from infra.settings import service_settings
from pipelines.reconcile import has_finished_run
from pipelines.verify import verify
from tests.load.measurement import Row
from tests.performance.lineage_scale import HALF, RUNS, STAGES, digest, fill_dataset_repo, fill_mlflow
from tests.prepared_loop import EDITOR, REWARD, prepare, surroundings, train, tune

PROMOTIONS, MODELS = 1_200, 150
"""More than a page of MLflow's search of runs, and more than one of its search of models."""
PROMOTED = "edit-reward"
MOST_SECONDS = 60.0
"""For a command with its start, on a busy machine."""
MOST_LOOKUP_SECONDS = 10.0
COMMAND = "import sys; from pipelines.cli import main; sys.exit(main())"


def fill_registry(store: str, champion: int, promotions: int, models: int) -> None:
    """Promotion records of one model, and further models without a version, in MLflow's own tables.

    Args:
        store: Address of MLflow's database.
        champion: The version that the last record names.
        promotions: Number of records.
        models: Number of further models.
    """
    import mlflow.store.model_registry.dbmodels.models as registered
    import mlflow.store.tracking.dbmodels.models as tracked
    from sqlalchemy import create_engine, insert
    from sqlalchemy.orm import Session

    with Session(create_engine(store)) as session:
        experiment = session.query(tracked.SqlExperiment).filter_by(name=registry.RECORDS).one()
        runs, tags = [], []
        for number in range(1, promotions + 1):
            run = digest("promotion", number)[:32]
            version = champion - (promotions - number) % champion
            runs.append(
                {
                    "run_uuid": run,
                    "user_id": "team",
                    "name": "promotion",
                    "experiment_id": experiment.experiment_id,
                    "status": "FINISHED",
                    "lifecycle_stage": "active",
                    "start_time": 10**12 + number,
                    "end_time": 10**12 + number + 1,
                    "artifact_uri": f"mlflow-artifacts:/2/{run}/artifacts",
                }
            )
            record = {
                "action": "promote",
                "model": PROMOTED,
                "version": str(version),
                "alias": "champion",
                "actor": "Ada",
                "reason": "better on hats",
                "previous": str(version - 1 or champion) if number > 1 else "",
                "verdict": "promote",
                "number": str(number),
                "at": "2026-01-05T10:00:00+00:00",
            }
            tags += [{"key": registry.PREFIX + key, "value": value, "run_uuid": run} for key, value in record.items()]
        session.execute(insert(tracked.SqlRun), runs)
        session.execute(insert(tracked.SqlTag), tags)
        names = [{"name": f"model-{number:04}", "creation_time": 0} for number in range(models)]
        session.execute(insert(registered.SqlRegisteredModel), names)
        session.commit()


def measure(scale: float) -> list[Row]:
    """Fill a store, and time what our commands and queries ask it.

    Args:
        scale: Share of the full numbers; the repository of the dataset's versions has all of them.
    """
    with tempfile.TemporaryDirectory(prefix="editloop-load-") as temporary:
        folder = Path(temporary)
        services = start_services(folder / "services")
        try:
            with patch.dict(os.environ, services.environment):
                return [_measure(folder, services, scale)]
        finally:
            stop_services(folder / "services")


def _measure(folder: Path, services: Services, scale: float) -> Row:
    runs, half = max(len(STAGES), round(scale * RUNS)), max(2, round(scale * HALF))
    promotions, models = max(2, round(scale * PROMOTIONS)), max(2, round(scale * MODELS))
    store = f"sqlite:///{services.home / 'mlflow' / 'mlflow.db'}"
    loop_home = folder / "loop"
    with patch.dict(os.environ, surroundings(loop_home)):
        loop = prepare(loop_home)
        train(loop, loop["dataset"], loop["version.json"], loop["model"])
        tune(loop)
        present = {stage: len(tracking.find_runs(stage=stage)) for stage in STAGES}
        fill_mlflow(store, runs, half)
        fill_registry(store, half, promotions, models)
        fill_dataset_repo(folder / "datasets")
        faults: list[str] = []
        figures: dict[str, float | str] = {}

        def timed(name: str, most: float, ask: Callable[[], object], expected: object) -> None:
            """Time a question, and note an answer that is not the expected one."""
            began = time.perf_counter()
            answer = ask()
            seconds = time.perf_counter() - began
            figures[f"seconds of {name}"] = round(seconds, 2)
            if answer != expected:
                faults.append(f"{name}: {answer}, not {expected}")
            if seconds > most:
                faults.append(f"{name}: {seconds:.1f} s, at most {most:g}")

        def command(*words: str) -> str:
            done = subprocess.run([sys.executable, "-c", COMMAND, *words], capture_output=True, text=True, check=False)
            return done.stdout if done.returncode == 0 else f"{done.returncode}: {done.stderr}"

        for name, kind in ((REWARD, "reward model"), (EDITOR, "editor")):
            timed(f"verify of a {kind}", MOST_SECONDS, lambda name=name: verify(f"models:/{name}@champion").gap, None)
        expected = len(range(STAGES.index("reward"), runs, len(STAGES))) + present["reward"]
        timed("all runs of a stage", MOST_LOOKUP_SECONDS, lambda: len(tracking.find_runs(stage="reward")), expected)
        oldest = digest("reward", 0)
        run = f"{STAGES.index('reward'):032x}"
        timed("the producer of a model", MOST_LOOKUP_SECONDS, lambda: tracking.find_producer_run("reward", oldest), run)
        timed(
            "the reconciler's look-up",
            MOST_LOOKUP_SECONDS,
            lambda: (has_finished_run("train-reward", "turn-0"), has_finished_run("train-reward", "turn-none")),
            (True, False),
        )
        versions = 2 * half + 2
        timed("all versions", MOST_LOOKUP_SECONDS, lambda: len(read_models()), versions)
        timed("all promotions", MOST_LOOKUP_SECONDS, lambda: len(registry.promotions(PROMOTED)), promotions)
        settings = service_settings()
        timed("the campaigns' records", MOST_LOOKUP_SECONDS, lambda: len(read_records(settings)), 1)

        def listed(*words: str) -> object:
            state = json.loads(command("registry", *words, "--json"))
            return len(state), len(state[PROMOTED]["versions"]), len(state[PROMOTED]["records"])

        timed("`editloop registry edit-reward`", MOST_SECONDS, lambda: listed(PROMOTED), (1, half, promotions))
        all_models = models + 4
        timed("`editloop registry`", 2 * MOST_SECONDS, lambda: listed(), (all_models, half, promotions))
        once = ("reconcile", "--once", "--out", str(folder / "runs"))
        timed("`editloop reconcile --once`", MOST_SECONDS, lambda: "failed" in command(*once), False)
    with patch.dict(os.environ, {"EDITLOOP_DATASET_REPO": str(folder / "datasets")}):
        for ask, what in (
            (trace_annotator, "person-7"),
            (trace_image, digest("picture", half)),
            (trace_dataset, digest("dataset", 2)),
            (trace_model, f"models:/{PROMOTED}@champion"),
        ):
            name = f"{ask.__name__.replace('_', ' of a ', 1)}"
            timed(name, MOST_LOOKUP_SECONDS, lambda ask=ask, what=what: bool(ask(what).models), True)
    for fault in faults:
        print(fault)
    counts = {"runs": runs, "versions": versions, "promotions": promotions, "models": all_models}
    return Row(
        "mlflow",
        f"MLflow with {runs:,} runs and {versions:,} versions",
        {**counts, "wrong or slow answers": len(faults), **figures, "load average": round(os.getloadavg()[0], 1)},
        not faults,
    )
