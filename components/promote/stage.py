"""The promote stage: register every trained model as challenger, and as champion only by its gate's verdict."""

from pathlib import Path

from components.promote.declaration import PromoteParameters
from editloop.content import complete_folder, read_manifest, write_json
from editloop.data.data_origin import origin_of
from editloop.datasets.repository import read_version
from editloop.errors import EditLoopError
from editloop.lineage import registry
from editloop.lineage.model_card import Link
from editloop.lineage.registration import dataset_tags, dataset_version_links, output_link, register
from editloop.scoring.opening import find_local


def run_promote(
    model: Path,
    benchmark: Path,
    dataset: Path,
    version: Path,
    output: Path,
    parameters: PromoteParameters,
    *,
    pipeline_run: str,
) -> dict[str, float]:
    """Register the reward model and move the aliases as its gate says.

    The same model again is the same version. The version carries what `editloop verify` needs: the run, the dataset,
    and its place in DVC.

    Args:
        model: Folder that stage reward wrote.
        benchmark: Folder that stage benchmark wrote. Its gate.json decides.
        dataset: Dataset folder that the model was trained on, or for EditScore the folder of distilled edits.
        version: JSON file that stage dataset or `editloop teacher publish` wrote.
        output: Folder to write: `promotion.json` {name, version, alias, verdict, reasons, run_id, sha256}.
        parameters: The stage's parameters.
        pipeline_run: Name of the pipeline run that registers the model.

    Returns:
        `model_version`, and `promoted` (1 if the model is the champion now).

    Raises:
        EditLoopError: No reward run in MLflow made the model, or it cannot be signed or promoted.
    """
    committed = read_version(version)
    manifest = read_manifest(dataset)
    facts = manifest["facts"]
    origin = origin_of(manifest) if "taught" in facts else None
    if "taught" in facts and not origin:
        raise EditLoopError(f"{dataset}: does not name the files that its rows came from. Import them again.")
    tags = dataset_tags(committed)
    if origin:
        chain = [*dataset_version_links("teacher's rows", committed), Link("source files", origin.text())]
    else:
        tags |= {"editloop.campaign_key": str(facts["campaign_key"])}
        chain = [
            output_link("dataset run", "dataset", committed["sha256"]),
            *dataset_version_links("dataset", committed),
            output_link("judgements run", "collect", str(facts.get("judgements_sha256"))),
            Link("campaign", str(facts["campaign_key"])),
            Link("annotators", str(len(facts.get("annotators", [])))),
            Link("preference pairs", str(facts.get("pairs", "unknown"))),
        ]
    name = parameters.name or find_local(str(model)).kind
    promotion = register(name, model, benchmark, stage="reward", pipeline_run=pipeline_run, tags=tags, chain=chain)
    with complete_folder(output) as folder:
        write_json(folder / "promotion.json", promotion)
    return {"model_version": float(promotion["version"]), "promoted": float(promotion["alias"] == registry.CHAMPION)}
