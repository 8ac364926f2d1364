"""The services as on a cluster, on PostgreSQL and S3: used, backed up, restored."""

import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from annotation.campaigns.record import read_records
from annotation.simulated_experts import answer_campaign
from components.annotate.declaration import AnnotateParameters
from components.annotate.stage import run_annotate
from components.collect.declaration import CollectParameters
from components.collect.stage import run_collect
from editloop.content import complete_folder, read_manifest
from editloop.datasets.repository import commit_dataset, fetch_dataset
from editloop.lineage import registry, tracking
from editloop.lineage.promotion import alias_version, promote_version
from editloop.object_storage import ObjectFolder
from infra.settings import service_settings
from tests.cluster_services import Cluster, cluster_services
from tests.kubernetes_manifests import FOLDER, workload
from tests.postgresql_server import find_programs, postgresql_server
from tests.s3_server import BUCKET, s3_server

PROGRAMS = find_programs()
PAGE = (FOLDER.parents[1] / "docs" / "cluster.md").read_text()
EMPTY_DATABASES = re.findall(r"-c '([^']+)'", PAGE.partition("## Back up and restore")[2])
"""The statements before a restore."""

pytestmark = [
    pytest.mark.timeout(600),  # Label Studio's first migration, on a busy machine
    pytest.mark.skipif(PROGRAMS is None, reason="PostgreSQL is not installed (Debian: apt-get install postgresql)"),
]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    assert PROGRAMS is not None
    ports = {name: free_port() for name in ("mlflow", "label-studio")}
    with s3_server(tmp_path_factory.mktemp("s3")) as s3, postgresql_server(PROGRAMS) as postgresql:
        yield Cluster(tmp_path_factory.mktemp("pods"), postgresql, s3, BUCKET, ports)


@pytest.fixture(scope="module")
def environment(cluster: Cluster) -> Iterator[dict[str, str]]:
    with cluster_services(cluster) as variables:
        yield variables


class Facts(NamedTuple):
    """What people did in the services."""

    campaigns: list[str]
    judgements: str
    """Content address of the collected answers."""
    champion: str
    promoted_by: str
    model: dict[str, Any]
    """Manifest of the champion, which comes from object storage."""


def read_facts(campaign: Path, candidates: Path, output: Path) -> Facts:
    settings = service_settings()
    run_collect(campaign, candidates, output, CollectParameters())
    model = registry.resolve_model("models:/edit-reward@champion")
    assert model is not None
    return Facts(
        [record.campaign.name for record in read_records(settings)],
        read_manifest(output)["sha256"],
        alias_version(tracking.client(), "edit-reward", "champion"),
        registry.promotions("edit-reward")[-1].actor,
        read_manifest(model),
    )


def first_experiment(variables: dict[str, str]) -> httpx.Response:
    auth = (variables["MLFLOW_TRACKING_USERNAME"], variables["MLFLOW_TRACKING_PASSWORD"])
    address = f"{variables['MLFLOW_TRACKING_URI']}/api/2.0/mlflow/experiments/get?experiment_id=0"
    return httpx.get(address, auth=auth, timeout=60)


def projects(variables: dict[str, str]) -> httpx.Response:
    headers = {"Authorization": f"Token {variables['EDITLOOP_LABEL_STUDIO_TOKEN']}"}
    return httpx.get(f"{variables['EDITLOOP_LABEL_STUDIO_URL']}/api/projects/", headers=headers, timeout=60)


def back_up(cluster: Cluster, **variables: str) -> list[str]:
    """Exit code and output of each of the back-up's containers, in the order in which a pod runs them."""
    results = [cluster.run(container, **variables) for container in workload("backup").containers]
    return [f"{done.returncode} {done.stdout.strip()}" for done in results]


def stores(root: Path, prefix: str = "") -> dict[str, str]:
    """Where the back-up's last container finds or puts what is outside the databases."""
    if not (root / "preferences.git").exists():
        subprocess.run(["git", "init", "--quiet", "--bare", root / "preferences.git"], check=True)
    places = {"EDITLOOP_PICTURES": "pictures", "EDITLOOP_DATASET_REMOTE": "dataset"}
    if prefix:
        places |= {"MLFLOW_ARTIFACTS_DESTINATION": "mlflow"}
    return {
        "EDITLOOP_PROFILE": "",
        "EDITLOOP_DATASET_REPO": (root / "preferences.git").as_uri(),
        **{variable: f"s3://{BUCKET}/{prefix}{place}" for variable, place in places.items()},
    }


def test_what_people_did_comes_back_from_a_backup(
    cluster: Cluster, environment: dict[str, str], make_candidates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("EDITLOOP_ANNOTATORS_FILE", str(tmp_path / "annotators.json"))
    monkeypatch.setenv("EDITLOOP_CACHE", str(tmp_path / "cache"))
    candidates, campaign = make_candidates(4), tmp_path / "campaign"
    run_annotate(candidates, campaign, AnnotateParameters(name="kitchens", annotators=["ada", "bo", "cy"], overlap=2))
    answer_campaign(campaign, candidates, settings=service_settings())
    with complete_folder(tmp_path / "model") as folder:
        (folder / "weights.safetensors").write_text("weights")
    with tracking.stage_run("reward", "train-reward", "edit-reward", {}, {}) as run:
        evidence = {"editloop.verdict": "promote", "editloop.benchmark_sha256": "5" * 64}
        version = registry.register_model("edit-reward", tmp_path / "model", run.run_id, {}, evidence)
        run.finish({}, {"output": tmp_path / "model"})
    promote_version(f"models:/edit-reward/{version}", actor="Ada", reason="better on hats")
    before = read_facts(campaign, candidates, tmp_path / "before")
    assert before[2:4] == (version, "Ada")

    here = stores(tmp_path / "here")
    with complete_folder(tmp_path / "dataset") as folder:
        (folder / "rows.parquet").write_text("rows")
    addresses = {"repo": here["EDITLOOP_DATASET_REPO"], "remote": here["EDITLOOP_DATASET_REMOTE"]}
    dataset = commit_dataset(tmp_path / "dataset", **addresses, message="one version")

    made = back_up(cluster, EDITLOOP_BACKUP_NAME="nightly", **here)
    names = [f"s3://{BUCKET}/backups/nightly/{database}.dump" for database in ("mlflow", "label_studio")]
    assert [line.rpartition(" ")[2] for line in made[:2]] == names
    assert re.fullmatch(r"0 nightly: \d+ files, .* MB are new; 2 dumps", made[2]), made[2]
    for statement in EMPTY_DATABASES:
        cluster.postgresql.psql("--command", statement)
    assert [reply.status_code for reply in (first_experiment(environment), projects(environment))] == [400, 500]
    there = stores(tmp_path / "there", "restored/")
    assert [line[0] for line in back_up(cluster, EDITLOOP_RESTORE="nightly", **there)] == ["0", "0", "0"]
    assert read_facts(campaign, candidates, tmp_path / "after") == before
    for place in ("pictures", "mlflow", "dataset"):
        came_back = ObjectFolder(f"s3://{BUCKET}/restored/{place}").marks()
        assert came_back
        assert came_back.items() <= ObjectFolder(f"s3://{BUCKET}/{place}").marks().items()
    fetch_dataset({**dataset, "repo": there["EDITLOOP_DATASET_REPO"]}, tmp_path / "fetched")
    assert back_up(cluster, EDITLOOP_RESTORE="nightly", **there)[2].startswith("1 editloop: s3://")
    once_more = cluster.run(workload("backup").containers[0], EDITLOOP_RESTORE="nightly")
    assert re.fullmatch("editloop: mlflow: .* already exists.*It needs an empty database.*\n", once_more.stdout)


@pytest.mark.parametrize(
    ("variables", "fault"),
    [
        ({"EDITLOOP_RESTORE": "never"}, r"s3://.*/never/mlflow\.dump: no such back-up\..*EDITLOOP_RESTORE.*"),
        ({"PGPASSWORD": "wrong"}, r"mlflow: .*password authentication failed.*Check PGHOST.*"),
        ({"PGDATABASE": ""}, r"PGDATABASE is not set\..*"),
    ],
)
def test_a_fault_of_a_backup_is_one_line(
    cluster: Cluster, environment: dict[str, str], variables: dict[str, str], fault: str
) -> None:
    container = workload("backup").containers[0]
    done = cluster.run(container, **{"EDITLOOP_BACKUP_NAME": "nightly", **variables})
    assert done.returncode == 1
    assert re.fullmatch(f"editloop: {fault}\n", done.stdout), done.stdout
