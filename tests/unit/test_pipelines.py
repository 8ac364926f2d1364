"""The pipelines: compiled files as committed, one graph for KFP and DVC, one set of defaults."""

import inspect
import subprocess
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

from editloop.errors import EditLoopError
from editloop.lineage.stage import Stage
from editloop.lineage.step import run_step
from pipelines import generation
from pipelines.backend import parse_arguments
from pipelines.catalogue import PIPELINES, STAGES, Pipeline, stage_parameters
from pipelines.compilation import COMPILED
from pipelines.settings import PARAMS, PRESETS, LoopSettings, read_params
from pipelines.stages import stage_parser

TOP = Path(__file__).parents[2]
IMPORTED = {"candidates_uri": "candidates", "campaign_uri": "annotate"}
"""Outputs of a first step that are another pipeline's outputs; other addresses come from outside the loop."""
Step = tuple[str, str]
"""A pipeline and a stage of it."""
Graph = dict[Step, set[Step]]


def compiled(name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(yaml.safe_load_all((COMPILED / f"{name}.yaml").read_text()))
    return found


def steps_of(name: str) -> dict[str, Any]:
    """The tasks of a pipeline but its first step: those of the pipeline nested in it."""
    found: dict[str, Any] = compiled(name)["components"][f"comp-{name}-steps"]["dag"]["tasks"]
    return found


def kfp_graph() -> Graph:
    """Step -> steps whose artifacts (or registered models) it reads, over all pipelines."""
    graph: Graph = {}
    for name in PIPELINES:
        tasks = steps_of(name)
        origin = {}
        for task, body in tasks.items():
            if task.startswith("importer"):
                parameter = body["inputs"]["parameters"]["uri"]["componentInputParameter"]
                made = IMPORTED.get(parameter)
                origin[task] = (STAGES[made].pipelines[0], made) if made else None
            else:
                origin[task] = (name, task.replace("-", "_"))
        for task, body in tasks.items():
            if task.startswith("importer"):
                continue
            artifacts = body["inputs"].get("artifacts", {}).values()
            before = {origin[one["taskOutputArtifact"]["producerTask"]] for one in artifacts} - {None}
            fields = STAGES[origin[task][1]].parameters.model_fields
            if {"reward", "judge"} & fields.keys():  # the champion, by its alias
                before.add((STAGES["promote"].pipelines[0], "promote"))
            graph[origin[task]] = before
    return graph


def dvc_graph() -> Graph:
    stages = yaml.safe_load((TOP / "dvc.yaml").read_text())["stages"]
    steps = {name: dvc_step(stage["cmd"].split()) for name, stage in stages.items()}
    maker = {out: steps[name] for name, stage in stages.items() for out in stage["outs"]}
    return {steps[name]: {maker[dep] for dep in stage["deps"] if dep in maker} for name, stage in stages.items()}


def dvc_step(words: list[str]) -> Step:
    """Of a command `editloop stage NAME ...`."""
    return words[words.index("--pipeline") + 1] if "--pipeline" in words else STAGES[words[2]].pipelines[0], words[2]


def test_dvc_and_kfp_name_the_same_stages_with_the_same_dependencies() -> None:
    assert dvc_graph() == kfp_graph()
    assert set(dvc_graph()) == {(name, stage.name) for stage in STAGES.values() for name in stage.pipelines}


def test_every_component_reads_the_pipeline_it_is_recorded_under() -> None:
    for name in PIPELINES:
        tasks = {task.replace("-", "_") for task in steps_of(name) if not task.startswith("importer")}
        assert tasks == {stage.name for stage in STAGES.values() if name in stage.pipelines}


def test_a_shared_stage_is_recorded_under_the_pipeline_that_it_runs_in() -> None:
    for stage in (stage for stage in STAGES.values() if len(stage.pipelines) > 1):
        for name in stage.pipelines:
            given = steps_of(name)[stage.name.replace("_", "-")]["inputs"]["parameters"]["pipeline"]
            assert given == {"runtimeValue": {"constant": name}}
    with pytest.raises(EditLoopError, match="curate is no part of pipeline improve-editor, but of curate-editor"):
        run_step(STAGES["curate"], pipeline_run="x", inputs={}, outputs={}, parameters={}, pipeline="improve-editor")


def test_no_component_installs_anything_or_carries_a_secret() -> None:
    for name in PIPELINES:
        text = (COMPILED / f"{name}.yaml").read_text()
        assert "pip install" not in text
        parameters = compiled(name)["root"]["inputDefinitions"]["parameters"]
        assert not [one for one in parameters if any(word in one for word in ("token", "password", "secret"))]


def test_the_demo_and_dvc_read_one_set_of_parameters() -> None:
    assert PARAMS.resolve() == TOP / "params.yaml"
    assert PRESETS["demo"].model_dump(mode="json", exclude_unset=True) == yaml.safe_load(
        (TOP / "params.yaml").read_text()
    )


def test_faulty_parameters_are_named(tmp_path: Path) -> None:
    values = PRESETS["demo"].model_dump(mode="json", exclude_unset=True)
    values["reward"] = {**values["reward"], "epoch": 3, "processes": 0}
    del values["seed"]
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(
        EditLoopError,
        match=r"params.yaml: seed: missing; .*reward.processes=0: .*reward.epoch: unknown key .did you mean epochs",
    ):
        read_params(tmp_path / "params.yaml")


def test_every_preset_is_whole_and_unknown_keys_are_rejected() -> None:
    for preset in PRESETS.values():
        assert LoopSettings.model_validate(preset.model_dump(exclude_unset=True)) == preset
    with pytest.raises(ValueError, match="extra"):
        LoopSettings.model_validate({"reward": {"epoch": 3}})


@pytest.mark.parametrize("stage", STAGES.values(), ids=STAGES)
def test_a_component_takes_what_its_stage_declares(stage: Stage) -> None:
    component = getattr(import_module(f"components.{stage.name}.component"), stage.name).component_spec
    assert component.inputs.keys() == {"pipeline", "parameters"} | {file.artifact_name for file in stage.inputs}
    for entry in stage_parameters(stage):
        assert entry.name in component.inputs["parameters"].description
    taken = inspect.signature(stage.function).parameters
    assert {file.argument for file in (*stage.inputs, *stage.outputs)} <= taken.keys()
    assert taken["parameters"].annotation in (stage.parameters, stage.parameters.__name__)


def test_generated_files_are_what_the_catalogue_says() -> None:
    """In a process of its own: kfp inspects every loaded module at each setting of a task."""
    command = [sys.executable, "-m", "pipelines.generation", "--check"]
    check = subprocess.run(command, cwd=TOP, capture_output=True, text=True)
    assert check.returncode == 0, f"run: make generate\n{check.stdout}{check.stderr}"


def test_a_changed_declaration_is_drift(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("pipelines.compilation.compile_pipelines", lambda *_: [])
    monkeypatch.setitem(STAGES, "reward", replace(STAGES["reward"], summary="Do something else."))
    assert generation.main(["--check"]) == 1
    assert "components/reward/component.py differs" in capsys.readouterr().out


def test_one_seed_for_all_stages(tmp_path: Path) -> None:
    values = PRESETS["demo"].model_dump(mode="json", exclude_unset=True)
    values["curate"]["seed"] = 4
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(EditLoopError, match=r"curate\.seed: all stages share one seed"):
        read_params(tmp_path / "params.yaml")


def test_a_value_that_a_stage_refuses_is_told_in_one_line() -> None:
    with pytest.raises(EditLoopError, match=r"^stage curate: best=-1: .*`editloop stage curate --help` explains\.$"):
        run_step(STAGES["curate"], pipeline_run="x", inputs={}, outputs={}, parameters={"best": -1})


def test_a_dvc_command_is_one_that_the_stage_takes() -> None:
    params = yaml.safe_load((TOP / "params.yaml").read_text())
    for name, stage in yaml.safe_load((TOP / "dvc.yaml").read_text())["stages"].items():
        words = stage["cmd"].split()
        assert words[:2] == ["editloop", "stage"]
        assert name.startswith(words[2])
        plain = []
        for word in words[3:]:
            if word.startswith("${") and isinstance(params.get(word[2:-1]), dict):
                for key, value in params[word[2:-1]].items():
                    plain += [f"--{key}", *(map(str, value) if isinstance(value, list) else [str(value)])]
            else:
                plain.append("0" if word == "${seed}" else word)
        stage_parser(STAGES[words[2]]).parse_args(plain)


def test_pipeline_arguments_are_typed_and_checked() -> None:
    texts = ["edits=/e", "campaign=5", 'annotators=["a"]', "overlap=2", "gold_share=0.1", "seed=3", "run_key=k"]
    arguments = parse_arguments("collect-preferences", texts)
    settings = yaml.safe_load(arguments.pop("settings"))
    assert arguments == {"edits": "/e", "campaign": "5", "annotators": ["a"], "overlap": 2}
    assert settings == {"annotate": {"gold_share": 0.1}, "seed": 3, "run_key": "k"}
    own_gate = parse_arguments("train-reward", ["campaign=c", "gate=/gates/ours.yaml", "preset=editreward-tiny"])
    assert own_gate.keys() == {"campaign", "preset", "settings"}
    assert yaml.safe_load(own_gate["settings"]) == {"benchmark": {"gate": "/gates/ours.yaml"}}, "no drop-down has it"
    for wrong in (["edit=/e"], ["edits"], ["overlap=two"], ["edits=/e"]):
        with pytest.raises(EditLoopError):
            parse_arguments("collect-preferences", wrong)


@pytest.mark.parametrize("pipeline", PIPELINES.values(), ids=PIPELINES)
def test_a_run_form_is_short_and_in_the_order_in_which_kfp_shows_it(pipeline: Pipeline) -> None:
    names = [entry.name for entry in pipeline.form]
    assert len(names) <= 8
    assert names == sorted(names), "KFP's UI sorts by name: required fields need names that come first"
    inputs = compiled(pipeline.name)["root"]["inputDefinitions"]["parameters"]
    assert inputs.keys() == set(names)
    for entry in pipeline.form:
        assert tuple(inputs[entry.name].get("literals", ())) == entry.choices
        assert not entry.choices or entry.default in entry.choices


def test_an_importer_can_be_resolved_by_a_real_backend() -> None:
    """KFP does not find the output of a renamed importer, and resolves addresses from its pipeline's inputs alone."""
    for name in PIPELINES:
        importers = {key: task for key, task in steps_of(name).items() if key.startswith("importer")}
        assert importers
        for key, task in importers.items():
            assert task["taskInfo"]["name"] == key
            assert "dependentTasks" not in task
            assert all("componentInputParameter" in value for value in task["inputs"]["parameters"].values())
        assert not [key for key in compiled(name)["root"]["dag"]["tasks"] if key.startswith("importer")]


def test_every_step_but_the_first_may_come_from_the_cache() -> None:
    """Nothing among a step's parameters tells one run from another that does the same."""
    for name in PIPELINES:
        first = compiled(name)["root"]["dag"]["tasks"][f"{name}-preflight"]
        assert first["cachingOptions"] == {}
        assert {str(task["cachingOptions"]) for task in steps_of(name).values()} == {"{'enableCache': True}"}
        assert "pipeline_job_id" not in (COMPILED / f"{name}.yaml").read_text()
