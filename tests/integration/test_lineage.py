"""The chain from a model to its annotators, each link broken in turn, and traces in both directions."""

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from annotation.campaigns.accounts import read_accounts
from annotation.campaigns.campaign import connect
from annotation.campaigns.label_studio import LabelStudioApi
from annotation.campaigns.labelling import result_of
from annotation.lineage_links import judgement_links
from editloop.content import read_manifest
from editloop.datasets.votes import Votes
from editloop.lineage import registry, tracking
from editloop.lineage.chain import Chain, Gap
from editloop.lineage.data_links import dataset_links
from editloop.lineage.signing import VERIFY_KEY, make_keys
from editloop.lineage.verify import verify_lineage
from infra.services import Services
from infra.settings import service_settings
from pipelines.cli import app
from pipelines.verify import verify
from tests.prepared_loop import BASE, EDITOR, REWARD, Loop, environment, prepare, surroundings, train, tune

pytestmark = pytest.mark.timeout(600)
MODEL, TUNED = f"models:/{REWARD}@champion", f"models:/{EDITOR}@champion"
Fault = Callable[["Lineage"], AbstractContextManager[Any]]


class Lineage:
    """The prepared loop, and ways to break it that undo themselves."""

    def __init__(self, loop: Loop, services: Services):
        self.loop, self.services = loop, services
        self.api = tracking.client()

    def version(self, name: str = REWARD) -> Any:
        return registry.find_version(f"models:/{name}@champion")

    def run(self, stage: str, output: str) -> str:
        """The run of a stage with the output in a folder of the loop."""
        return tracking.find_producer_run(stage, str(read_manifest(self.loop[output])["sha256"]))

    def artifact(self, run_id: str, name: str) -> Path:
        (path,) = (self.services.home / "mlflow").glob(f"artifacts/*/{run_id}/artifacts/{name}")
        return path

    @contextmanager
    def changed(self, path: Path) -> Iterator[None]:
        """One byte of a file is another."""
        kept, mode = path.read_bytes(), path.stat().st_mode
        path.chmod(0o644)
        path.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
        try:
            yield
        finally:
            path.write_bytes(kept)
            path.chmod(mode)

    @contextmanager
    def deleted(self, run_id: str) -> Iterator[None]:
        self.api.delete_run(run_id)
        try:
            yield
        finally:
            self.api.restore_run(run_id)

    @contextmanager
    def retagged(self, run_id: str, key: str, value: str) -> Iterator[None]:
        before = self.api.get_run(run_id).data.tags[key]
        self.api.set_tag(run_id, key, value)
        try:
            yield
        finally:
            self.api.set_tag(run_id, key, before)

    @contextmanager
    def remarked(self, key: str, value: str, name: str = REWARD) -> Iterator[None]:
        """Another tag on the registered version."""
        version = self.version(name)
        self.api.set_model_version_tag(name, version.version, key, value)
        try:
            yield
        finally:
            self.api.set_model_version_tag(name, version.version, key, version.tags[key])

    @contextmanager
    def unaliased(self) -> Iterator[None]:
        number = self.version().version
        self.api.delete_registered_model_alias(REWARD, "champion")
        try:
            yield
        finally:
            self.api.set_registered_model_alias(REWARD, "champion", number)

    @contextmanager
    def moved_tag(self) -> Iterator[None]:
        """The dataset's tag names a commit of another history with the same files."""
        tag = self.version().tags["editloop.dvc_tag"]

        def git(*words: str) -> str:
            who = ("-c", "user.name=x", "-c", "user.email=x@x")
            done = subprocess.run(["git", *who, *words], cwd=self.loop.repo, check=True, capture_output=True, text=True)
            return done.stdout.strip()

        before = git("rev-parse", f"refs/tags/{tag}")
        rewritten = git("commit-tree", f"{tag}^{{tree}}", "-m", "another history")
        git("tag", "--force", "--annotate", tag, rewritten, "--message", self.loop.dataset_sha256)
        try:
            yield
        finally:
            git("update-ref", f"refs/tags/{tag}", before)

    @contextmanager
    def reworded(self) -> Iterator[None]:
        client, project = connect(service_settings()), self.loop.campaign.project_id
        config = client.projects.get(project).label_config
        client.projects.update(project, label_config=config.replace("</View>", "<!-- --></View>", 1))
        try:
            yield
        finally:
            client.projects.update(project, label_config=config)

    @contextmanager
    def untrusted(self) -> Iterator[None]:
        """The key that signed the campaign's record is not trusted."""
        with environment({VERIFY_KEY: str(make_keys(self.loop.repo.parent).public)}):
            yield

    @contextmanager
    def reanswered(self) -> Iterator[None]:
        """Somebody edited an answer after the campaign was read."""
        (author, _), annotation = next(iter(self.loop.annotations.items()))
        settings = service_settings()
        api = LabelStudioApi(settings, read_accounts(settings)[author].token)
        before = api.call("GET", f"/api/annotations/{annotation}/")["result"]
        api.call("PATCH", f"/api/annotations/{annotation}/", json={"result": result_of([{"if": 4, "vq": 4}] * 3)})
        try:
            yield
        finally:
            api.call("PATCH", f"/api/annotations/{annotation}/", json={"result": before})


@pytest.fixture(scope="module")
def lineage(services: Services, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lineage]:
    home = tmp_path_factory.mktemp("lineage")
    with environment(services.environment | surroundings(home)):
        loop = prepare(home)
        train(loop, loop["dataset"], loop["version.json"], loop["model"])
        tune(loop)
        yield Lineage(loop, services)


@pytest.fixture(scope="module")
def facts(lineage: Lineage) -> tuple[dict[str, Any], Votes]:
    """The dataset's facts and votes, as its links give them."""
    version = lineage.version()
    return dataset_links(Chain(MODEL), version, lineage.api.get_run(version.run_id))


def editloop(*words: str) -> Any:
    return CliRunner().invoke(app, list(words))


def test_both_chains_are_whole(lineage: Lineage) -> None:
    told = json.loads(editloop("verify", TUNED, "--json").stdout)
    assert (told["complete"], told["gap"]) == (True, None)
    names = [link["name"] for link in told["links"]]
    assert names.count("model content") == names.count("signature") == names.count("training run") == 2
    links = {link["name"]: link["value"] for link in told["links"]}
    assert links["annotators"] == "ada, bo, chi"
    assert links["dataset"] == lineage.loop.dataset_sha256
    assert links["independent judge"] == "edit-score 7: promote"
    assert links["gate's data"] == f"heldout 555555555555 (120 units), dataset {lineage.loop.dataset_sha256[:12]}"
    assert links["reward model"].startswith(f"models:/{REWARD}/1 ")
    assert links["candidates"].endswith(f"(run {lineage.run('candidates', 'candidates')})")
    assert links["edits"] == read_manifest(lineage.loop["edits"])["sha256"]
    assert {"promotion record", "DVC revision", "label export", "labelling config", "answers", "git commit"} <= set(
        links
    )


def test_without_label_studio_a_chain_ends_at_the_annotators_that_the_dataset_names(
    lineage: Lineage, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("URL", "TOKEN"):
        monkeypatch.delenv(f"EDITLOOP_LABEL_STUDIO_{name}")
    chain = verify_lineage(TUNED)
    links = {link["name"]: link["value"] for link in chain.links}
    assert chain.gap is None
    assert (list(links)[-1], links["annotators"]) == ("annotators", "ada, bo, chi")
    assert links["dataset"] == lineage.loop.dataset_sha256
    assert "campaign" not in links


def store(lineage: Lineage) -> Path:
    return lineage.artifact(lineage.version().run_id, "model*/weights.safetensors")


def signature(lineage: Lineage) -> Path:
    return lineage.artifact(lineage.version().run_id, f"model*{registry.SIGNATURE}")


def evidence(lineage: Lineage) -> str:
    return tracking.find_producer_run("benchmark", str(read_manifest(lineage.loop.home / "model-benchmark")["sha256"]))


def shard(lineage: Lineage) -> Path:
    """The largest file of the DVC remote: a shard of candidates."""
    return max((path for path in (lineage.loop.home / "remote").rglob("*") if path.is_file()), key=_size)


def _size(path: Path) -> int:
    return path.stat().st_size


MODEL_FAULTS: dict[str, tuple[str, Fault]] = {
    "an alias that is gone": ("registry", lambda it: it.unaliased()),
    "a record that is gone": (
        "promotion record",
        lambda it: it.deleted(registry.promotions(REWARD)[-1].run_id),
    ),
    "a byte of the model": ("model content", lambda it: it.changed(store(it))),
    "another model's digest": ("model content", lambda it: it.remarked("editloop.sha256", "0" * 64)),
    "a signature that was changed": ("signature", lambda it: it.changed(signature(it))),
    "a training run that is gone": ("training run", lambda it: it.deleted(it.version().run_id)),
    "a training run of another model": (
        "training run",
        lambda it: it.retagged(it.version().run_id, "editloop.output.output", "0" * 64),
    ),
    "another pipeline run": ("pipeline run", lambda it: it.remarked("editloop.pipeline_run", "other")),
    "a run of no commit": ("git commit", lambda it: it.retagged(it.version().run_id, "mlflow.source.git.commit", "")),
    "a verdict that was changed": ("benchmark", lambda it: it.changed(it.artifact(evidence(it), "gate.json"))),
    "a manifest that was changed": (
        "benchmark",
        lambda it: it.changed(it.artifact(evidence(it), "manifests/output/manifest.json")),
    ),
    "a benchmark that is gone": ("benchmark", lambda it: it.deleted(evidence(it))),
    "a benchmark of another model": (
        "benchmark",
        lambda it: it.retagged(evidence(it), "editloop.input.model", "0" * 64),
    ),
    "a gate that decided on another dataset": (
        "gate",
        lambda it: it.retagged(evidence(it), "editloop.input.dataset", "0" * 64),
    ),
    "another verdict": ("gate", lambda it: it.remarked("editloop.verdict", "hold")),
    "another dataset": ("dataset", lambda it: it.remarked("editloop.dataset_sha256", "0" * 64)),
    "a byte of a shard in the remote": ("DVC revision", lambda it: it.changed(shard(it))),
    "a tag that was moved": ("DVC revision", lambda it: it.moved_tag()),
    "a dataset run that is gone": ("dataset run", lambda it: it.deleted(it.run("dataset", "dataset"))),
}
JUDGEMENT_FAULTS: dict[str, tuple[str, Fault]] = {
    "a collect run that is gone": ("judgements", lambda it: it.deleted(it.run("collect", "judgements"))),
    "an export that was changed": (
        "label export",
        lambda it: it.changed(it.artifact(it.run("collect", "judgements"), "export.json")),
    ),
    "judgements that were changed": (
        "label export",
        lambda it: it.changed(it.artifact(it.run("collect", "judgements"), "judgements.jsonl")),
    ),
    "a campaign that no trusted key signed": ("campaign", lambda it: it.untrusted()),
    "a page that was changed": ("labelling config", lambda it: it.reworded()),
    "an answer that was edited": ("answers", lambda it: it.reanswered()),
    "candidates whose run is gone": ("candidates", lambda it: it.deleted(it.run("candidates", "candidates"))),
}


@pytest.mark.parametrize("fault", MODEL_FAULTS)
def test_a_broken_link_of_the_model_is_named(lineage: Lineage, fault: str) -> None:
    link, breaking = MODEL_FAULTS[fault]
    with breaking(lineage):
        gap = verify(MODEL).gap
    assert gap is not None
    assert gap.startswith(f"{link}: "), gap


@pytest.mark.parametrize("fault", JUDGEMENT_FAULTS)
def test_a_broken_link_of_the_judgements_is_named(
    lineage: Lineage, facts: tuple[dict[str, Any], Votes], fault: str
) -> None:
    link, breaking = JUDGEMENT_FAULTS[fault]
    with breaking(lineage), pytest.raises(Gap, match=rf"^{link}: "):
        judgement_links(Chain(MODEL), *facts)


def test_ratings_that_nobody_gave_are_noticed(lineage: Lineage, facts: tuple[dict[str, Any], Votes]) -> None:
    known, votes = facts
    forged = votes._replace(judged=[votes.judged[0]._replace(visual_quality=5), *votes.judged[1:]])
    with pytest.raises(Gap, match=r"^judgements: the dataset has ratings that nobody gave"):
        judgement_links(Chain(MODEL), known, forged)
    with pytest.raises(Gap, match=r"^agreement gate: if 0\.100 "):
        judgement_links(Chain(MODEL), known | {"gates": {"if": 0.6}, "alpha": {"if": 0.1}}, votes)
    with pytest.raises(Gap, match=r"^annotators: "):
        judgement_links(Chain(MODEL), known | {"annotators": []}, votes)


def test_an_editors_evidence_and_teacher_are_links(lineage: Lineage) -> None:
    run = lineage.run("editor_eval", "evaluation")
    for link, fault in (
        ("editor_eval", lineage.changed(lineage.artifact(run, "evaluation.json"))),
        ("reward model", lineage.remarked("editloop.reward", f"models:/{REWARD}/99", EDITOR)),
    ):
        with fault:
            gap = verify(TUNED).gap
        assert gap is not None
        assert gap.startswith(f"{link}: "), gap


def test_the_command_fails_on_a_gap_and_is_whole_again_after_all_faults(lineage: Lineage) -> None:
    with lineage.unaliased():
        failed = editloop("verify", MODEL)
    assert failed.exit_code == 1
    assert "✗ registry" in failed.stdout
    whole = editloop("verify", MODEL)
    assert whole.exit_code == 0, whole.stdout
    assert "✓ annotators" in whole.stdout


def test_an_alias_set_by_hand_is_told_and_a_foreign_version_is_a_gap(lineage: Lineage) -> None:
    """After all faults: what was set by hand stays on record."""
    api, mine = lineage.api, lineage.version()
    foreign = api.create_model_version(REWARD, mine.source, mine.run_id)
    api.set_registered_model_alias(REWARD, "champion", foreign.version)
    chain = verify(MODEL)
    told = {link["name"]: link for link in chain.links}
    assert "set by hand" in told["promotion record"]["value"]
    assert told["promotion record"]["warning"]
    assert chain.gap is not None
    assert chain.gap.startswith("model content: ")
    api.set_registered_model_alias(REWARD, "champion", mine.version)
    assert verify(MODEL).gap is None


def test_imported_ratings_end_the_chain_at_their_file() -> None:
    chain, facts = Chain("m"), {"judgements_sha256": "j", "export_sha256": "e" * 64, "annotators": ["dee"]}
    judgement_links(chain, facts)
    assert [link["name"] for link in chain.links] == ["judgements", "imported ratings", "annotators"]
    assert chain.links[1]["value"].startswith("e" * 64)
    with pytest.raises(Gap, match=r"^imported ratings: "):
        judgement_links(Chain("m"), facts | {"export_sha256": None})


def traced(*words: str) -> dict[str, Any]:
    done = editloop("trace", *words, "--json")
    assert done.exit_code == 0, done.exception
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def models(found: dict[str, Any]) -> dict[str, str]:
    return {f"{one['name']}/{one['version']}": one["because"] for one in found["came_of"]["models"]}


def test_traces_lead_from_people_and_pictures_to_models_and_back(lineage: Lineage, tmp_path: Path) -> None:
    loop, sha256 = lineage.loop, lineage.loop.dataset_sha256
    heirs = {f"{REWARD}/1": f"trained on dataset {sha256[:12]}", f"{EDITOR}/1": f"taught by models:/{REWARD}/1"}
    by_person = traced("--annotator", "bo")
    assert models(by_person) == heirs
    assert [one["sha256"] for one in by_person["came_of"]["datasets"]] == [sha256]
    assert next(one for one in by_person["came_of"]["models"] if one["name"] == EDITOR)["aliases"] == [
        "challenger",
        "champion",
    ]
    picture = next(iter((loop["candidates"] / "images").iterdir()))
    for words in (("--image", picture.stem), ("--image", str(picture)), ("--dataset", sha256[:12])):
        assert models(traced(*words)) == heirs
    practised = loop.home / "prompts" / "source.png"
    of_this_loop = {name for name in models(traced("--image", str(practised))) if name.startswith((REWARD, EDITOR))}
    assert of_this_loop == {f"{EDITOR}/1"}, "other tests' loops practise on the same picture"

    back = traced("--dataset", f"preferences-{sha256[:12]}")["came_from"]
    assert back["annotators"] == ["ada", "bo", "chi"]
    assert back["campaign"] == loop.campaign.key
    assert back["candidates"] == read_manifest(loop["candidates"])["sha256"]
    editor = traced("--model", TUNED)
    assert editor["came_from"]["annotators"] == ["ada", "bo", "chi"]
    assert [one["name"] for one in editor["came_from"]["models"]] == [REWARD]
    assert editor["came_from"]["models"][0]["base"] == BASE
    assert models(editor) == {}
    assert set(models(traced("--model", f"models:/{REWARD}/1"))) == {f"{EDITOR}/1"}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--annotator", "nobody"), "Annotators of its versions: ada, bo, chi"),
        (("--image", "0" * 64), "no version of the dataset has this picture"),
        (("--image", "no-such.png"), "neither a sha256"),
        (("--dataset", "0123456789"), "the latest tags are preferences-"),
        (("--model", f"models:/{REWARD}/77"), "no such version"),
        ((), "Give one of"),
        (("--annotator", "ada", "--model", MODEL), "Give one of"),
    ],
)
def test_what_nobody_knows_is_said(lineage: Lineage, words: tuple[str, ...], told: str) -> None:
    done = editloop("trace", *words)
    assert told in str(done.exception)
