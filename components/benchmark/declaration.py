"""What stage benchmark is."""

from collections.abc import Sequence

from editloop.datasets.splits import unread_shards
from editloop.evaluation.gates.settings import read_gate
from editloop.lineage.stage import Stage, StageFile, StageParameters


class BenchmarkParameters(StageParameters):
    """Parameters of stage benchmark."""

    champion: str = ""
    """The model to beat; empty for the champion of the model's own kind."""
    gate: str = "reward"
    """The gate that a model must pass to be promoted: a shipped one (reward, open), or the path of a YAML file."""
    seed: int = 0
    """Seed of the bootstrap."""

    @classmethod
    def choices(cls) -> dict[str, Sequence[str]]:
        return {"gate": ("reward", "open")}

    def check(self) -> None:
        read_gate(self.gate)


BENCHMARK = Stage(
    name="benchmark",
    title="Measure the reward model",
    summary="Measure the reward model on held-out pairs, and decide whether it may replace the champion.",
    parameters=BenchmarkParameters,
    inputs=(
        StageFile("dataset", "Preference pairs, as stage dataset wrote them.", skip=unread_shards("test")),
        StageFile("model", "The reward model, as stage reward wrote it.", type="Model"),
    ),
    outputs=(StageFile("output", "Figures on held-out pairs, and the gate's verdict.", "benchmark", "Artifact"),),
    pipelines=("train-reward",),
    dataset_use="evaluation",
)
