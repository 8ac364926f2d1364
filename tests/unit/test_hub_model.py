"""A model as a folder of the Hugging Face hub: its files, and a card that the hub's own reader takes."""

from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from typer.testing import CliRunner

from editloop.content import complete_folder, read_manifest, write_file, write_json
from editloop.errors import EditLoopError
from editloop.lineage.hub_model import HubChoices, export_hub_model
from pipelines.cli import app

REPORT = {"accuracy_labels": 0.75, "accuracy_labels_ci95": [0.7, 0.8], "spearman_if": 0.5, "pairs": 40, "uplift": None}
GATE = {"verdict": "hold", "reasons": ["too few pairs"], "against": "models:/edit-reward/1"}


def reward_model(folder: Path) -> Path:
    facts = {"base": "/home/ada/models/our-base", "dataset_sha256": "d" * 64, "seed": 3, "training": {"epochs": 2}}
    with complete_folder(folder, facts) as out:
        write_file(out / "reward.json", "{}")
        write_file(out / "model.safetensors", b"weights")
    return folder


def tuned_editor(folder: Path) -> Path:
    with complete_folder(folder, {"editor": "models:/editor@champion", "reward_sha256": "r" * 64}) as out:
        write_file(out / "editor" / "model_index.json", "{}")
        write_file(out / "editor" / "transformer" / "weights.safetensors", b"weights")
        write_file(out / "samples.png", b"of the training")
    return folder


def evidence(folder: Path, model: Path, report: str = "benchmark.json", fact: str = "model_sha256") -> Path:
    with complete_folder(folder, {fact: read_manifest(model)["sha256"]}) as out:
        write_json(out / "gate.json", GATE)
        write_json(out / report, REPORT)
    return folder


def card_of(folder: Path) -> tuple[dict[str, Any], str, list[Any]]:
    card = ModelCard.load(folder / "README.md")
    return card.data.to_dict(), card.text, list(card.data.eval_results or [])


def test_a_reward_models_card_has_its_figures_and_asks_for_what_is_not_given(tmp_path: Path) -> None:
    model = reward_model(tmp_path / "model")
    measured = evidence(tmp_path / "benchmark", model)
    arguments = ["judge", "export", str(model), "--evidence", str(measured), "--out", str(tmp_path / "our-reward")]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.output.splitlines() == ["verdict hold", str(tmp_path / "our-reward")]
    metadata, text, results = card_of(tmp_path / "our-reward")
    assert metadata["tags"] == ["image-editing", "editloop", "reward-model", "edit-reward"]
    assert metadata["metrics"] == ["accuracy", "spearmanr"]
    assert {(one.metric_type, one.metric_name, one.metric_value) for one in results} == {
        ("accuracy", "accuracy labels", 0.75),
        ("spearmanr", "spearman if", 0.5),
    }
    assert not {"license", "base_model", "datasets", "pipeline_tag"} & metadata.keys()
    whole = (tmp_path / "our-reward" / "README.md").read_text()
    assert all(f"\n# {question}: " in whole for question in ("license", "base_model", "datasets"))
    assert "# our-reward: hold" in text
    assert "| accuracy labels | 0.750 | 0.700 to 0.800 |" in text
    assert read_manifest(model)["sha256"] in text
    assert "- base: our-base" in text
    assert "ada" not in whole
    assert (tmp_path / "our-reward" / "model.safetensors").read_bytes() == b"weights"
    read_manifest(tmp_path / "our-reward", check=True)


def test_an_editors_folder_is_its_pipeline_and_the_publishers_choices_are_in_the_card(tmp_path: Path) -> None:
    model = tuned_editor(tmp_path / "tuned")
    measured = evidence(tmp_path / "evaluation", model, "evaluation.json", "tuned_sha256")
    arguments = ["editor", "export", str(model), "--evidence", str(measured), "--out", str(tmp_path / "ours")]
    arguments += ["--license", "apache-2.0", "--base-model", "team/base", "--dataset", "team/a", "--dataset", "team/b"]
    CliRunner().invoke(app, arguments, catch_exceptions=False)
    metadata, text, _ = card_of(tmp_path / "ours")
    assert metadata["license"] == "apache-2.0"
    assert metadata["base_model"] == "team/base"
    assert metadata["datasets"] == ["team/a", "team/b"]
    assert (metadata["library_name"], metadata["pipeline_tag"]) == ("diffusers", "image-to-image")
    assert "- editor: models:/editor@champion" in text
    assert sorted(path.relative_to(tmp_path / "ours").as_posix() for path in (tmp_path / "ours").rglob("*.*")) == [
        "README.md",
        "manifest.json",
        "model_index.json",
        "transformer/weights.safetensors",
    ]


def test_evidence_of_another_model_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    model, other = reward_model(tmp_path / "model"), tuned_editor(tmp_path / "other")
    with complete_folder(tmp_path / "bare", {"model_sha256": read_manifest(model)["sha256"]}) as out:
        write_json(out / "gate.json", GATE)
    damaged = evidence(tmp_path / "damaged", model)
    (damaged / "gate.json").write_text("{}")
    cases = (
        (
            evidence(tmp_path / "of-other", other),
            r"measured [0-9a-f]{12}, but .*model is [0-9a-f]{12}\. Give",
        ),
        (tmp_path / "bare", r"lacks gate\.json or benchmark\.json and evaluation\.json"),
        (damaged, r"changed since it was written: gate\.json"),
    )
    for measured, message in cases:
        with pytest.raises(EditLoopError, match=message):
            export_hub_model(model, "edit-reward", measured, tmp_path / "hub", HubChoices())
        assert not (tmp_path / "hub").exists()
