"""The stages of the loop in their order, and the pipelines that connect them.

A pipeline is data here: which artifacts it imports, which stages it runs, what each stage reads.
`pipelines/building.py` makes KFP's pipeline of it, `pipelines/dvc_stages.py` the stages of dvc.yaml.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Any, Literal, get_args, get_origin

import yaml

from components.annotate.declaration import ANNOTATE
from components.benchmark.declaration import BENCHMARK
from components.candidates.declaration import CANDIDATES
from components.collect.declaration import COLLECT
from components.curate.declaration import CURATE
from components.dataset.declaration import DATASET
from components.editor_dpo.declaration import EDITOR_DPO
from components.editor_eval.declaration import EDITOR_EVAL
from components.editor_rl.declaration import EDITOR_RL
from components.editor_sft.declaration import EDITOR_SFT
from components.promote.declaration import PROMOTE
from components.reward.declaration import REWARD
from editloop.errors import EditLoopError, there_are
from editloop.lineage.stage import Stage
from editloop.settings_file import parse_yaml, shorten

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
        EDITOR_DPO,
        EDITOR_RL,
        EDITOR_EVAL,
    )
}
"""Every stage by its name, in the loop's order."""


@dataclass(frozen=True)
class Import:
    """An artifact that a pipeline takes from outside. The first step finds its address."""

    name: str
    field: str
    """The form's field that it is found by: an address, or `campaign` for a campaign's name."""
    help: str
    """What the field is."""
    type: str = "Dataset"


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
class Parameter:
    """A parameter of a stage, or a field of a pipeline's run form."""

    name: str
    type: type
    help: str
    default: Any = None
    is_required: bool = False
    choices: tuple[str, ...] = ()
    """Names that ship, for a drop-down; empty where it is free."""


SETTINGS = Parameter(
    "settings",
    str,
    "Everything else, as YAML: parameters by stage ({reward: {epochs: 8}}), `seed` for all stages, and `run_key`: runs "
    "of one key are one piece of work.",
    "",
)
"""The form's last field."""


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
    fields: tuple[str, ...]
    """Parameters of stages, by their name in the pipeline, that are fields of the form. The others go to `settings`."""

    @property
    def form(self) -> tuple[Parameter, ...]:
        """The run form, in the order in which KFP's UI shows it: by name, the required fields first."""
        entries = {part.field: Parameter(part.field, str, part.help, is_required=True) for part in self.imports}
        for step in self.steps:
            for parameter in stage_parameters(step.stage):
                name = step.pipeline_name(parameter.name)
                if name in self.fields:
                    entries.setdefault(name, replace(parameter, name=name))
        ordered = sorted(entries.values(), key=lambda entry: (not entry.is_required, entry.name))
        return (*ordered, SETTINGS)

    def owners(self, name: str) -> list[tuple[str, str]]:
        """Return the stages that take a parameter of the pipeline, each with its own name of it.

        Args:
            name: The parameter's name in the pipeline.
        """
        return [
            (step.stage.name, parameter)
            for step in self.steps
            for parameter in step.stage.parameters.model_fields
            if step.pipeline_name(parameter) == name
        ]

    def arguments(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the form's values. Parameters of stages that are no fields go into `settings`.

        So do values that a drop-down does not have, such as the path of a gate: Kubeflow's backend refuses them.

        Args:
            values: Values by field; `seed`, `run_key` and any parameter of a stage, by its name in the pipeline, too.
                `settings` is YAML text or a mapping.

        Raises:
            EditLoopError: A name is unknown, or `settings` is no mapping.
        """
        fields = {entry.name: entry for entry in self.form}
        settings = read_run_settings(values.get("settings", ""))
        arguments: dict[str, Any] = {}
        for name, value in values.items():
            if name == "settings":
                continue
            if name in fields and (value in fields[name].choices or not fields[name].choices):
                arguments[name] = value
            elif name in ("seed", "run_key"):
                settings[name] = value
            elif owners := self.owners(name):
                for stage, parameter in owners:
                    settings.setdefault(stage, {})[parameter] = value
            else:
                known = [*fields, "seed", "run_key", *(step.stage.name for step in self.steps)]
                inner = (
                    step.pipeline_name(field) for step in self.steps for field in step.stage.parameters.model_fields
                )
                known += get_close_matches(name, set(inner).difference(known), n=1)
                raise EditLoopError(f"{self.name}: no parameter {shorten(name)}; {there_are(name, known)}")
        if settings:
            arguments["settings"] = yaml.safe_dump(settings, default_flow_style=True, width=10**6).strip()
        return arguments

    def stage_values(self, parameters: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """Return values of stages' parameters by their names in the pipeline.

        Args:
            parameters: Values by parameter, by stage. Of stages that share a parameter, the first one's value counts.
        """
        values: dict[str, Any] = {}
        for step in self.steps:
            for name, value in parameters.get(step.stage.name, {}).items():
                values.setdefault(step.pipeline_name(name), value)
        return values


def read_run_settings(settings: Any) -> dict[str, Any]:
    """Return the mapping in a form's field `settings`.

    Args:
        settings: YAML text, or the mapping itself.

    Raises:
        EditLoopError: It is no YAML, or no mapping.
    """
    values = parse_yaml(settings, "settings") if isinstance(settings, str) else settings
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise EditLoopError(f"settings: {shorten(values)} is no mapping; write for example {{reward: {{epochs: 8}}}}")
    return {key: dict(value) if isinstance(value, dict) else value for key, value in values.items()}


def stage_parameters(stage: Stage) -> tuple[Parameter, ...]:
    """Return the parameters of a stage with type, default and help.

    Args:
        stage: The stage.
    """
    shipped = stage.parameters.choices()
    return tuple(
        Parameter(
            name,
            _plain_type(info.annotation),
            " ".join((info.description or "").split()),
            None if info.is_required() else info.default,
            info.is_required(),
            tuple(shipped.get(name, get_args(info.annotation) if get_origin(info.annotation) is Literal else ())),
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


_COLLECT_PREFERENCES = Pipeline(
    "collect-preferences",
    "Make candidate edits of a team's images, and ask experts about them in Label Studio.",
    imports=(
        Import(
            "edits",
            "edits",
            "Name of an edits folder in EDITLOOP_EDITS, or its address: a path here, s3:// on a cluster.",
        ),
    ),
    steps=(
        Step(CANDIDATES, {"edits": "edits"}, {"editor": "image_editor"}),
        Step(ANNOTATE, {"candidates": "candidates.candidates"}, {"name": "campaign"}),
    ),
    outputs={"candidates": "candidates.candidates", "campaign": "annotate.campaign"},
    fields=("annotators", "campaign", "image_editor", "lead", "overlap"),
)
_TRAIN_REWARD = Pipeline(
    "train-reward",
    "Train the reward model on a complete campaign, measure it, and promote it as its gate says.",
    imports=(
        Import("candidates", "campaign", "Name or key of a complete campaign that collect-preferences opened."),
        Import("campaign", "campaign", "Name or key of a complete campaign.", "Artifact"),
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
    fields=("gate", "preset", "processes", "registered_name"),
)
_CURATE_EDITOR = Pipeline(
    "curate-editor",
    "Fine-tune the editor on the edits that the champion reward model keeps, and compare it with its base.",
    imports=(
        Import(
            "edits",
            "edits",
            "Edits folder, by name or address: its candidates are chosen from, or else its targets.",
        ),
        Import("heldout", "edits_held_out", "Edits folder to compare on, by name or address."),
    ),
    steps=(
        Step(CURATE, {"noisy": "edits"}),
        Step(EDITOR_SFT, {"curated": "curate.curated", "version": "curate.version"}, {"editor": "image_editor"}),
        Step(
            EDITOR_EVAL,
            {"heldout": "heldout", "tuned": "editor_sft.tuned"},
            {"base": "image_editor", "name": "registered_name"},
        ),
    ),
    outputs={"curated": "curate.curated", "tuned": "editor_sft.tuned", "evaluation": "editor_eval.evaluation"},
    fields=("gate", "image_editor", "judge", "preset", "registered_name"),
)
_LEARN_FROM_PAIRS = Pipeline(
    "learn-from-pairs",
    "Train the editor on the pairs of a complete campaign, without a reward model, and compare it with its base.",
    imports=(
        Import("candidates", "campaign", "Name or key of a complete campaign that collect-preferences opened."),
        Import("campaign", "campaign", "Name or key of a complete campaign.", "Artifact"),
        Import("heldout", "edits_held_out", "Edits folder to compare on, by name or address."),
    ),
    steps=(
        Step(COLLECT, {"campaign": "campaign", "candidates": "candidates"}),
        Step(DATASET, {"judgements": "collect.judgements", "candidates": "candidates"}),
        Step(EDITOR_DPO, {"dataset": "dataset.dataset", "version": "dataset.version"}, {"editor": "image_editor"}),
        Step(
            EDITOR_EVAL,
            {"heldout": "heldout", "tuned": "editor_dpo.tuned"},
            {"base": "image_editor", "name": "registered_name"},
        ),
    ),
    outputs={"tuned": "editor_dpo.tuned", "evaluation": "editor_eval.evaluation"},
    fields=("gate", "image_editor", "preset", "registered_name"),
)
_IMPROVE_EDITOR = Pipeline(
    "improve-editor",
    "Improve the editor by online RL with the champion reward model, and compare it with its base.",
    imports=(
        Import("prompts", "edits_to_practise", "Edits folder to practise on, by name or address."),
        Import("heldout", "edits_held_out", "Edits folder to compare on, by name or address."),
    ),
    steps=(
        Step(EDITOR_RL, {"prompts": "prompts"}, {"editor": "image_editor"}),
        Step(
            EDITOR_EVAL,
            {"heldout": "heldout", "tuned": "editor_rl.tuned"},
            {"base": "image_editor", "name": "registered_name"},
        ),
    ),
    outputs={"tuned": "editor_rl.tuned", "evaluation": "editor_eval.evaluation"},
    fields=("gate", "image_editor", "preset", "registered_name", "reward"),
)
PIPELINES: dict[str, Pipeline] = {
    pipeline.name: pipeline
    for pipeline in (_COLLECT_PREFERENCES, _TRAIN_REWARD, _CURATE_EDITOR, _LEARN_FROM_PAIRS, _IMPROVE_EDITOR)
}
"""Every pipeline by its name, in the loop's order."""
