"""The stages of the loop in their order, and the pipelines that connect them.

A pipeline is data here: which artifacts it imports, which stages it runs, what each stage reads.
`pipelines/building.py` makes KFP's pipeline of it, `pipelines/dvc_stages.py` the stages of dvc.yaml.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, get_origin

from components.annotate.declaration import ANNOTATE
from components.benchmark.declaration import BENCHMARK
from components.candidates.declaration import CANDIDATES
from components.collect.declaration import COLLECT
from components.curate.declaration import CURATE
from components.dataset.declaration import DATASET
from components.editor_eval.declaration import EDITOR_EVAL
from components.editor_rl.declaration import EDITOR_RL
from components.editor_sft.declaration import EDITOR_SFT
from components.promote.declaration import PROMOTE
from components.reward.declaration import REWARD
from editloop.errors import EditLoopError, there_are
from editloop.lineage.stage import Stage

STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        CANDIDATES,
        ANNOTATE,
        COLLECT,
        DATASET,
        REWARD,
        BENCHMARK,
        PROMOTE,
        CURATE,
        EDITOR_SFT,
        EDITOR_RL,
        EDITOR_EVAL,
    )
}
"""Every stage by its name, in the loop's order."""


@dataclass(frozen=True)
class Import:
    """An artifact that a pipeline takes from outside, by the parameters `NAME_uri` and `NAME_sha256`."""

    name: str
    help: str
    type: str = "Dataset"
    title: str = ""
    """Name in KFP's graph; empty for `name`."""


@dataclass(frozen=True)
class Step:
    """A stage in a pipeline."""

    stage: Stage
    reads: Mapping[str, str]
    """Source of each input, by the name of its artifact: an import's name, or `STAGE.ARTIFACT` of an earlier step."""
    named: Mapping[str, str] = field(default_factory=dict)
    """Names of the pipeline's parameters, by the stage's parameter, where the two differ."""

    def pipeline_name(self, parameter: str) -> str:
        """Return the name in the pipeline of one of the stage's parameters.

        Args:
            parameter: The parameter.
        """
        return self.named.get(parameter, parameter)


@dataclass(frozen=True)
class PipelineParameter:
    """An entry of a pipeline's run form."""

    name: str
    type: type
    help: str
    default: Any = None
    is_required: bool = False


@dataclass(frozen=True)
class Pipeline:
    """A pipeline: imports, steps in their order, and outputs."""

    name: str
    description: str
    """One sentence, which KFP's list shows."""
    imports: tuple[Import, ...]
    steps: tuple[Step, ...]
    outputs: Mapping[str, str]
    """Source of each output, as `STAGE.ARTIFACT`."""

    @property
    def parameters(self) -> tuple[PipelineParameter, ...]:
        """The run form: the required parameters first, then the digests of the imports, then what the stages take.

        Stages that name a parameter alike share it, so it needs one default.
        """
        required = [PipelineParameter(f"{part.name}_uri", str, part.help, is_required=True) for part in self.imports]
        optional = [
            PipelineParameter(f"{part.name}_sha256", str, f"Content address of {part.name}_uri; empty for unknown.", "")
            for part in self.imports
        ]
        names: set[str] = set()
        for step in self.steps:
            for parameter in stage_parameters(step.stage):
                name = step.pipeline_name(parameter.name)
                if name not in names:
                    names.add(name)
                    (required if parameter.is_required else optional).append(replace(parameter, name=name))
        run_key = PipelineParameter(
            "run_key", str, "Runs of one key are one piece of work; empty for a run of its own.", ""
        )
        seeds = [entry for entry in optional if entry.name == "seed"]
        return (*required, *(entry for entry in optional if entry.name != "seed"), *seeds, run_key)

    def arguments(self, parameters: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """Return the pipeline's arguments for values of its stages' parameters.

        Args:
            parameters: Values by parameter, by stage. Of stages that share a parameter, the first one's value counts.
        """
        arguments: dict[str, Any] = {}
        for step in self.steps:
            for name, value in parameters.get(step.stage.name, {}).items():
                arguments.setdefault(step.pipeline_name(name), value)
        return arguments


def stage_parameters(stage: Stage) -> tuple[PipelineParameter, ...]:
    """Return the parameters of a stage with type, default and help.

    Args:
        stage: The stage.
    """
    return tuple(
        PipelineParameter(
            name,
            _plain_type(info.annotation),
            " ".join((info.description or "").split()),
            None if info.is_required() else info.default,
            info.is_required(),
        )
        for name, info in stage.parameters.model_fields.items()
    )


def find_pipeline(name: str) -> Pipeline:
    """Return a pipeline by its name.

    Args:
        name: The name.

    Raises:
        EditLoopError: There is no such pipeline.
    """
    if name not in PIPELINES:
        raise EditLoopError(f"{name}: no such pipeline; {there_are(name, PIPELINES)}")
    return PIPELINES[name]


def _plain_type(annotation: Any) -> type:
    """Return KFP's type of a field: str, int, float, bool or list."""
    plain = {kind: kind for kind in (str, int, float, bool)}
    return plain.get(annotation, list if get_origin(annotation) is list else str)


_HELD_OUT = Import("heldout", "Edits folder to compare on.", title="held-out tasks")
_EDITOR_NAMES = {"base": "editor", "name": "registered_name"}
_COLLECT_PREFERENCES = Pipeline(
    "collect-preferences",
    "Make candidate edits of a team's images, and ask experts about them in Label Studio.",
    imports=(Import("edits", "Folder with edits.jsonl and its images: a path here, s3:// on a cluster."),),
    steps=(
        Step(CANDIDATES, {"edits": "edits"}),
        Step(ANNOTATE, {"candidates": "candidates.candidates"}, {"name": "campaign"}),
    ),
    outputs={"candidates": "candidates.candidates", "campaign": "annotate.campaign"},
)
_TRAIN_REWARD = Pipeline(
    "train-reward",
    "Train the reward model on a complete campaign, measure it, and promote it as its gate says.",
    imports=(
        Import("candidates", "Folder of candidate edits that collect-preferences made."),
        Import("campaign", "Folder of the campaign that collect-preferences opened.", "Artifact"),
    ),
    steps=(
        Step(COLLECT, {"campaign": "campaign", "candidates": "candidates"}),
        Step(DATASET, {"judgements": "collect.judgements", "candidates": "candidates"}),
        Step(REWARD, {"dataset": "dataset.dataset"}),
        Step(BENCHMARK, {"dataset": "dataset.dataset", "model": "reward.model"}),
        Step(
            PROMOTE,
            {
                "model": "reward.model",
                "benchmark": "benchmark.benchmark",
                "dataset": "dataset.dataset",
                "version": "dataset.version",
            },
            {"name": "registered_name"},
        ),
    ),
    outputs={"model": "reward.model", "promotion": "promote.promotion"},
)
_CURATE_EDITOR = Pipeline(
    "curate-editor",
    "Fine-tune the editor on the edits that the champion reward model keeps, and compare it with its base.",
    imports=(
        Import(
            "edits",
            "Edits folder to choose from: its candidates, or its targets where no row has any.",
            title="noisy edits",
        ),
        _HELD_OUT,
    ),
    steps=(
        Step(CURATE, {"noisy": "edits"}),
        Step(EDITOR_SFT, {"curated": "curate.curated", "version": "curate.version"}),
        Step(EDITOR_EVAL, {"heldout": "heldout", "tuned": "editor_sft.tuned"}, _EDITOR_NAMES),
    ),
    outputs={"curated": "curate.curated", "tuned": "editor_sft.tuned", "evaluation": "editor_eval.evaluation"},
)
_IMPROVE_EDITOR = Pipeline(
    "improve-editor",
    "Improve the editor by online RL with the champion reward model, and compare it with its base.",
    imports=(Import("prompts", "Edits folder to practise on."), _HELD_OUT),
    steps=(
        Step(EDITOR_RL, {"prompts": "prompts"}),
        Step(EDITOR_EVAL, {"heldout": "heldout", "tuned": "editor_rl.tuned"}, _EDITOR_NAMES),
    ),
    outputs={"tuned": "editor_rl.tuned", "evaluation": "editor_eval.evaluation"},
)
PIPELINES: dict[str, Pipeline] = {
    pipeline.name: pipeline for pipeline in (_COLLECT_PREFERENCES, _TRAIN_REWARD, _CURATE_EDITOR, _IMPROVE_EDITOR)
}
"""Every pipeline by its name, in the loop's order."""
