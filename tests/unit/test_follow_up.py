"""A campaign's follow_up is checked at every door that a campaign opens by, before people are asked."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from components.annotate.declaration import AnnotateParameters
from editloop.content import complete_folder
from editloop.errors import EditLoopError
from pipelines import campaign_cli
from pipelines.follow_up import read_follow_up
from pipelines.preflight import plan_run
from pipelines.stages import run_stage

EDITS = {"edits_to_practise": "kitchens", "edits_held_out": "kitchens-test"}


def opening(follow_up: object) -> AnnotateParameters:
    text = follow_up if isinstance(follow_up, str) else json.dumps(follow_up)
    return AnnotateParameters(name="kitchens", annotators=["ada", "bo"], follow_up=text)


@pytest.mark.parametrize(
    "follow_up",
    [
        {},
        {
            "train-reward": {
                "epochs": 8,
                "preset": "editreward-tiny",
                "settings": "{dataset: {seed: 9}}",
                "seed": 3,
            }
        },
        {"improve-editor": EDITS, "collect-preferences": {"edits": "kitchens-2"}},
        {"collect-preferences": {"edits": "kitchens-2", "annotators": ["chi", "dee"], "follow_up": "{}"}},
    ],
)
def test_what_reconcile_can_start_is_accepted(follow_up: dict[str, dict[str, object]]) -> None:
    assert read_follow_up(opening(follow_up)) == follow_up


@pytest.mark.parametrize(
    ("follow_up", "fault"),
    [
        ({"train-rewrad": {}}, r"no pipeline train-rewrad .* Did you mean train-reward\?"),
        ({"curate-editor": EDITS}, r"no pipeline curate-editor follows"),
        ({"train-reward": {"nosuch": 1}}, r"train-reward: no parameter nosuch"),
        ({"train-reward": {"epoch": 1}}, r"no parameter epoch.* Did you mean epochs\?"),
        ({"train-reward": {"epochs": "many"}}, r"epochs=many: .*valid integer"),
        ({"train-reward": {"preset": "editreward-tinny"}}, r"Did you mean editreward-tiny\?"),
        ({"train-reward": {"campaign": "other"}}, r"reconcile gives campaign; leave it out"),
        ({"train-reward": {"settings": "{rewrad: {}}"}}, r"no stage or setting 'rewrad'.* Did you mean reward\?"),
        ({"train-reward": 3}, r"train-reward: 3 is no object"),
        ({"improve-editor": {"edits_to_practise": 5}}, r"edits_held_out is missing; .*edits_to_practise=5: .*string"),
        ({"collect-preferences": {}}, r"collect-preferences: edits is missing"),
        ({"collect-preferences": {"edits": "x", "overlap": 3}}, r"overlap 3 of 2 annotators"),
        ({"collect-preferences": {"edits": "x", "campaign": "[/red]\x1b"}}, r"U\+001B"),
        ({"collect-preferences": {"edits": "x", "follow_up": '{"train": {}}'}}, r"no pipeline train follows"),
        ([], r"write arguments by pipeline"),
        ("{", r"follow_up = \{: not JSON"),
    ],
)
def test_what_would_fail_later_is_refused_in_one_line(follow_up: object, fault: str) -> None:
    with pytest.raises(EditLoopError, match=fault) as refused:
        read_follow_up(opening(follow_up))
    assert "\n" not in str(refused.value)


def by_command(folder: Path, follow_up: str) -> None:
    campaign_cli.open_campaign_command(folder / "campaign.yaml", folder / "campaign", follow_up, folder / "services")


def by_stage(folder: Path, follow_up: str) -> None:
    options = ["--candidates", str(folder), "--output", str(folder / "campaign"), "--name", "abc", "--annotators", "a"]
    run_stage("annotate", [*options, "--overlap", "1", "--follow-up", follow_up])


def by_form(folder: Path, follow_up: str) -> None:
    form = {"edits": str(folder / "edits"), "campaign": "abc", "annotators": ["a"], "overlap": 1}
    plan_run("collect-preferences", {**form, "settings": json.dumps({"annotate": {"follow_up": follow_up}})})


@pytest.mark.parametrize("open_by", [by_command, by_stage, by_form])
def test_every_door_checks_it(tmp_path: Path, open_by: Callable[[Path, str], None]) -> None:
    """None of them has services here: the refusal comes first."""
    (tmp_path / "tasks.jsonl").touch()
    with complete_folder(tmp_path / "edits", {}) as folder:
        (folder / "edits.jsonl").write_text("{}")
    (tmp_path / "campaign.yaml").write_text("{name: abc, candidates: ., annotators: [a], overlap: 1}")
    with pytest.raises(EditLoopError, match=r"train-rewrad .*Did you mean train-reward\?"):
        open_by(tmp_path, '{"train-rewrad": {}}')
