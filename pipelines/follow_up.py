"""A campaign's `follow_up`: the arguments of the pipelines that reconcile starts when the campaign has closed.

It is checked while the campaign opens, because its faults would show only when people have given all their answers.
"""

from collections.abc import Mapping

from components.annotate.declaration import ANNOTATE, AnnotateParameters
from editloop.errors import EditLoopError, there_are
from editloop.settings_file import parse_json, shorten
from pipelines.catalogue import find_pipeline
from pipelines.form_check import check_form

GIVEN: Mapping[str, tuple[str, ...]] = {
    "train-reward": ("campaign", "answers_sha256", "withdrawn_sha256", "run_key"),
    "improve-editor": ("run_key",),
    "collect-preferences": ("image_editor", "run_key"),
}
"""The pipelines that may follow a campaign, each with the arguments that reconcile gives itself."""
INHERITED = ("annotators", "overlap", "lead")
"""Arguments that the next campaign takes from the one before, unless they are given."""
ADVICE = "Correct it before people are asked."

Arguments = dict[str, object]
"""Values of a run form, by field or parameter."""
FollowUp = dict[str, Arguments]
"""Arguments by pipeline."""


def read_follow_up(opening: AnnotateParameters) -> FollowUp:
    """Read and check the `follow_up` of a campaign that is about to open.

    Args:
        opening: The parameters that the campaign opens with.

    Returns:
        The arguments by pipeline.

    Raises:
        EditLoopError: It is no JSON object; a pipeline or an argument is unknown, missing or of the wrong type; or an
            argument is one that reconcile gives. One line with all faults.
    """
    text = opening.follow_up
    follow_up = parse_json(text, f"follow_up = {shorten(text)}")
    if not isinstance(follow_up, dict):
        raise EditLoopError(
            f'follow_up = {shorten(text)}: write arguments by pipeline, such as {{"train-reward": {{"epochs": 8}}}}.'
        )
    faults = [fault for name, arguments in follow_up.items() for fault in _faults(name, arguments, opening)]
    if faults:
        lines = (" ".join(fault.split()).rstrip(".") for fault in faults)
        raise EditLoopError(f"follow_up: {'; '.join(lines)}. {ADVICE}")
    return follow_up


def kept_follow_up(text: str) -> FollowUp:
    """Read the `follow_up` that an open campaign's run in MLflow keeps. It was checked when the campaign opened.

    Args:
        text: The run's tag.

    Raises:
        EditLoopError: Somebody changed the tag, and it is no object of objects any more.
    """
    follow_up = parse_json(text, f"tag editloop.follow_up = {shorten(text)}")
    if not isinstance(follow_up, dict) or not all(isinstance(arguments, dict) for arguments in follow_up.values()):
        raise EditLoopError(
            f"tag editloop.follow_up = {shorten(text)}: no arguments by pipeline. Open the campaign again."
        )
    return follow_up


def _faults(name: str, arguments: object, opening: AnnotateParameters) -> list[str]:
    """Return what is wrong with the arguments of one pipeline, a sentence for each."""
    if name not in GIVEN:
        return [f"no pipeline {shorten(name)} follows a campaign; {there_are(name, GIVEN)}"]
    if not isinstance(arguments, dict):
        return [f"{name}: {shorten(arguments)} is no object of arguments"]
    pipeline = find_pipeline(name)
    faults = [f"{name}: reconcile gives {key}; leave it out" for key in GIVEN[name] if key in arguments]
    inherited: Arguments = {field: getattr(opening, field) for field in INHERITED}
    values = inherited | arguments if name == "collect-preferences" else arguments
    imports = {part.field for part in pipeline.imports}
    faults += [f"{name}: {field} is missing" for field in sorted(imports.difference(values, GIVEN[name]))]
    faults += [
        f"{name}: {field}={shorten(values[field])}: Input should be a valid string"
        for field in sorted(imports.intersection(values))
        if not isinstance(values[field], str)
    ]
    try:
        required = {"campaign": "the next campaign"} if name == "collect-preferences" else {}
        checked = check_form(pipeline, pipeline.arguments(required | values))
        faults += [f"{name}: {fault}" for fault in checked.faults]
        following = checked.parameters.get(ANNOTATE.name)
        if isinstance(following, AnnotateParameters) and "follow_up" in arguments:
            read_follow_up(following)
    except EditLoopError as error:
        faults.append(f"{name}: {str(error).removeprefix(f'{name}: ').removesuffix(ADVICE)}")
    return faults
