"""Export of a model as a folder of the Hugging Face hub: its files, and a card with the hub's metadata as README.md."""

import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from editloop.content import MANIFEST, RESTORE, complete_folder, read_manifest, write_file
from editloop.datasets.hub_folder import CARD_FILE
from editloop.errors import EditLoopError
from editloop.json_file import read_json_object
from editloop.lineage.gate_decision import read_decision
from editloop.lineage.model_card import Link, model_card, training_settings

EDITOR = "editor"
REPORTS = ("benchmark.json", "evaluation.json")
"""Files of figures in an evidence folder: of a reward model's benchmark, and of an editor's evaluation."""
MEASURED_MODEL = ("model_sha256", "tuned_sha256")
"""Facts of an evidence folder with the content of the model that was measured."""
TEACHERS = ("dataset_sha256", "reward_sha256")
"""Facts of a model with the content of what it learnt from."""
METRICS = {"accuracy": "accuracy", "spearman": "spearmanr"}
"""The hub's names of metrics, by the word that a figure's name begins with; other figures keep their names."""
LICENSES = "https://hf.co/docs/hub/repositories-licenses"


class HubChoices(NamedTuple):
    """What only the publisher knows. The card asks for what is not given."""

    license: str = ""
    """Identifier of the license on the hub."""
    base_model: str = ""
    """The base's name on the hub, OWNER/NAME."""
    datasets: Sequence[str] = ()
    """The datasets' names on the hub."""


def export_hub_model(model: Path, kind: str, evidence: Path, output: Path, choices: HubChoices) -> str:
    """Write a model as a folder of the hub.

    An editor's folder holds its pipeline, which `DiffusionPipeline.from_pretrained` reads; a reward model's is what
    every command of EditLoop opens.

    Args:
        model: A reward model's folder, or the output folder of stage editor_sft, editor_dpo or editor_rl.
        kind: "edit-reward", "edit-score" or "editor".
        evidence: Folder that stage benchmark or editor_eval wrote for the model: its verdict and its figures.
        output: Folder to write. Its name becomes the model's.
        choices: What only the publisher knows.

    Returns:
        The gate's verdict.

    Raises:
        EditLoopError: The model has changed since it was written, or the evidence is damaged or of another model.
    """
    manifest = read_manifest(model, check=True)
    measured, gate, report = _read_evidence(evidence)
    if measured != manifest["sha256"]:
        raise EditLoopError(
            f"--evidence {evidence}: measured {measured[:12] or 'no known model'}, but {model} is "
            f"{str(manifest['sha256'])[:12]}. Give the folder of this model's benchmark or evaluation."
        )
    facts = manifest["facts"]
    chain = [
        Link("content", str(manifest["sha256"])),
        Link("evidence", str(read_manifest(evidence)["sha256"])),
        *(Link(name.removesuffix("_sha256"), str(facts[name])) for name in TEACHERS if name in facts),
    ]
    card = model_card(output.name, kind, gate, report, chain, _public(training_settings(facts)))
    folder = model / EDITOR if kind == EDITOR else model
    with complete_folder(output, {"model_sha256": manifest["sha256"], "verdict": gate["verdict"]}) as out:
        shutil.copytree(folder, out, dirs_exist_ok=True, ignore=shutil.ignore_patterns(MANIFEST, CARD_FILE))
        write_file(out / CARD_FILE, _metadata(output.name, kind, report, choices) + card)
    return str(gate["verdict"])


def _read_evidence(evidence: Path) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Return the content of the model that was measured, the verdict, and the figures."""
    facts = read_manifest(evidence, check=True)["facts"]
    measured = next((str(facts[name]) for name in MEASURED_MODEL if name in facts), "")
    file = next((evidence / name for name in REPORTS if (evidence / name).is_file()), None)
    if file is None or not (evidence / "gate.json").is_file():
        raise EditLoopError(
            f"--evidence {evidence}: lacks gate.json or {' and '.join(REPORTS)}; give what stage benchmark or "
            "editor_eval wrote."
        )
    return measured, read_decision(evidence / "gate.json"), read_json_object(file, RESTORE)


def _public(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings without the folders of the machine that trained: of a path its last part stays."""

    def public(value: Any) -> Any:
        is_path = isinstance(value, str) and "/" in value and not value.startswith("models:/")
        return Path(value).name if is_path else value

    return {key: public(value) for key, value in settings.items()}


def _metadata(name: str, kind: str, report: Mapping[str, Any], choices: HubChoices) -> str:
    """Return the card's front matter; what is missing in it is asked for in comments."""
    figures = {key: value for key, value in report.items() if isinstance(value, float)}
    types = {key: METRICS.get(re.split("[_-]", key)[0], key) for key in figures}
    results = {
        "task": {"type": "image-to-image" if kind == EDITOR else "reward-modeling"},
        "dataset": {"type": "held-out", "name": "held-out edits"},
        "metrics": [{"type": types[key], "name": key.replace("_", " "), "value": figures[key]} for key in figures],
    }
    known = sorted({kind for kind in types.values() if kind in METRICS.values()})
    metadata = {
        "license": choices.license,
        "base_model": choices.base_model,
        "datasets": list(choices.datasets),
        "library_name": "diffusers" if kind == EDITOR else "editloop",
        "pipeline_tag": "image-to-image" if kind == EDITOR else "",
        "tags": ["image-editing", "editloop", *(["reward-model", kind] if kind != EDITOR else [])],
        "metrics": known,
        "model-index": [{"name": name, "results": [results]}] if figures else [],
    }
    stated = yaml.safe_dump({key: value for key, value in metadata.items() if value}, sort_keys=False)
    questions = {"license": f"one of {LICENSES}", "base_model": "OWNER/NAME", "datasets": "[OWNER/NAME]"}
    asked = "".join(f"# {key}: {value}\n" for key, value in questions.items() if not metadata[key])
    return f"---\n{stated}{asked}---\n"
