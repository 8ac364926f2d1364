"""Writes docs/api.md, the reference of the public surface, from the docstrings.

    python -m tests.api_reference            # as `make generate` runs it
    python -m tests.api_reference --check    # is the page what the docstrings say? part of `make lint`

griffe reads the source; nothing of EditLoop is imported. `SECTIONS` says which classes besides the public names are on
the page, and in which order.
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import griffe

TOP = Path(__file__).parents[1]
PAGE = TOP / "docs" / "api.md"
INTRODUCTION = """\
# API reference

<!-- Written by `make generate` from the docstrings, and compared by `make lint`. -->

`import editloop` gives the names that are written `editloop.NAME` below; each is imported when it is first used. The
other classes are what these take and return; import them from the module that is named with them. The command line has
a help of its own: `editloop --help`.
"""


class Section(NamedTuple):
    """A part of the page."""

    title: str
    names: tuple[str, ...]
    """Public names, and `MODULE:NAME` for others."""


SECTIONS = (
    Section(
        "Judges",
        (
            "open_judge",
            "Judge",
            "EditGroup",
            "editloop.models.judge_protocol:Picture",
            "Score",
            "editloop.models.judge_protocol:AxisScore",
            "editloop.models.judge_protocol:JudgeUnavailableError",
        ),
    ),
    Section("Files of scores", ("score_edits", "ScoringSettings", "editloop.scoring.score_file:ScoringSummary")),
    Section("Training", ("train_reward_model", "editloop.training.launch:Launcher")),
    Section(
        "Editors",
        (
            "open_editor",
            "edit",
            "editloop.models.editors.protocol:Editor",
            "editloop.models.editors.protocol:Conditioning",
            "editloop.models.editors.settings:EditorSettings",
        ),
    ),
    Section(
        "Suites",
        (
            "open_suite",
            "judge_suite",
            "evaluate",
            "editloop.evaluation.suites.suite:Suite",
            "editloop.evaluation.suites.suite:Counting",
            "editloop.evaluation.suites.suite:Item",
            "editloop.evaluation.suites.suite:Comparison",
            "editloop.evaluation.suites.suite:PictureRef",
            "editloop.evaluation.suites.opening:SuiteFormat",
            "editloop.evaluation.suites.opening:Reader",
            "editloop.evaluation.suites.answers:SuiteAnswers",
            "editloop.evaluation.suites.evaluation:Evaluation",
        ),
    ),
    Section(
        "Gates",
        (
            "read_gate",
            "decide",
            "SuiteMeasurement",
            "editloop.evaluation.outcomes:Outcomes",
            "editloop.evaluation.gates.decision:Agreement",
            "editloop.evaluation.gates.settings:GateSettings",
            "editloop.evaluation.gates.settings:SuiteGate",
            "editloop.evaluation.gates.settings:Slices",
            "editloop.evaluation.gates.settings:WithinEditorGate",
            "editloop.evaluation.gates.settings:BaselineGate",
            "editloop.evaluation.gates.settings:IndependentJudge",
        ),
    ),
    Section("Lineage", ("verify_lineage", "editloop.lineage.chain:Chain")),
    Section("Errors", ("EditLoopError",)),
)
KINDS = griffe.DocstringSectionKind
TITLES = {KINDS.parameters: "Arguments", KINDS.returns: "Returns", KINDS.raises: "Raises", KINDS.examples: "Example"}


class Entry(NamedTuple):
    """A function, a class or a type of the page."""

    name: str
    """As the reader writes it: `editloop.edit` for a public name, else the bare name."""
    definition: griffe.Function | griffe.Class | griffe.Attribute


class PageError(Exception):
    """The page cannot be written: a name is missing, or on no part of the page."""


def public_modules(package: Path) -> dict[str, str]:
    """Return the modules of the public names, by name.

    Args:
        package: Folder of the package, whose `__init__.py` has the table `_MODULES`.
    """
    for node in ast.parse((package / "__init__.py").read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_MODULES":
            return dict(ast.literal_eval(node.value))
    raise PageError(f"{package}/__init__.py: no table _MODULES")


def load_entries(top: Path, sections: tuple[Section, ...]) -> dict[str, Entry]:
    """Read the definitions of all names of the page, by their names in `sections`.

    Args:
        top: Folder that has the package.
        sections: The parts of the page.

    Raises:
        PageError: A public name is on no part of the page, or a name is not defined where it should be.
    """
    public = public_modules(top / "editloop")
    listed = [name for section in sections for name in section.names]
    if left_out := sorted(public.keys() - set(listed)):
        raise PageError(f"public, but in no section of tests/api_reference.py: {', '.join(left_out)}")
    modules: dict[str, griffe.Module] = {}
    entries = {}
    for listed_name in listed:
        module, _, name = listed_name.rpartition(":")
        module = module or public.get(name, "")
        path = top.joinpath(*module.split(".")).with_suffix(".py")
        if module not in modules and path.is_file():
            modules[module] = griffe.visit(module, filepath=path, code=path.read_text())
        definition = modules[module].members.get(name) if module in modules else None
        if not isinstance(definition, griffe.Function | griffe.Class | griffe.Attribute):
            raise PageError(f"{listed_name}: no such function, class or type")
        entries[listed_name] = Entry(f"editloop.{name}" if name in public else name, definition)
    return entries


def write_page(top: Path = TOP, sections: tuple[Section, ...] = SECTIONS) -> str:
    """Return the page.

    Args:
        top: Folder that has the package.
        sections: The parts of the page.
    """
    entries = load_entries(top, sections)
    anchors = {entry.definition.name: _anchor(entry.name) for entry in entries.values()}
    lines = [INTRODUCTION]
    for section in sections:
        links = (entries[name] for name in section.names)
        lines.append(
            f"- {section.title}: " + ", ".join(f"[`{one.definition.name}`](#{_anchor(one.name)})" for one in links)
        )
    for section in sections:
        lines += ["", f"## {section.title}"]
        for name in section.names:
            lines += ["", *_entry(entries[name], anchors)]
    return re.sub("\n{3,}", "\n\n", "\n".join(lines)).strip() + "\n"


def _anchor(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return "".join(letter for letter in heading.lower() if letter.isalnum() or letter in "_-")


def _entry(entry: Entry, anchors: dict[str, str]) -> Iterator[str]:
    definition = entry.definition
    yield f"### `{entry.name}`"
    yield ""
    if isinstance(definition, griffe.Function):
        yield from _signature(definition, entry.name)
        yield from _docstring(definition, anchors)
        return
    if isinstance(definition, griffe.Attribute):
        yield from ["```python", f"{definition.name} = {_code(definition.value)}", "```", ""]
        yield from _docstring(definition, anchors)
        return
    bases = f"({', '.join(map(str, definition.bases))})" if definition.bases else ""
    source = definition.module.path if entry.name == definition.name else "editloop"
    yield from [
        "```python",
        f"from {source} import {definition.name}",
        "",
        f"class {definition.name}{bases}",
        "```",
        "",
    ]
    yield from _docstring(definition, anchors)
    fields = [member for member in _public(definition) if isinstance(member, griffe.Attribute)]
    if fields:
        yield from ["", "| field | type | default | meaning |", "|---|---|---|---|"]
        yield from (_field(field, anchors) for field in fields)
    for method in _public(definition):
        if isinstance(method, griffe.Function) and method.docstring:
            yield from ["", f"#### `{definition.name}.{method.name}`", ""]
            yield from _signature(method, method.name)
            yield from _docstring(method, anchors)


def _public(definition: griffe.Class) -> Iterator[griffe.Object]:
    """Public members of a class, in the source's order; pydantic's and Python's own are left out."""
    for name, member in definition.members.items():
        if (
            (not name.startswith("_") or name == "__call__")
            and name != "model_config"
            and isinstance(member, griffe.Object)
        ):
            yield member


def _signature(function: griffe.Function, name: str) -> Iterator[str]:
    parameters = [_parameter(one) for one in function.parameters if one.name not in ("self", "cls")]
    kinds = [one.kind for one in function.parameters if one.name not in ("self", "cls")]
    if griffe.ParameterKind.keyword_only in kinds and griffe.ParameterKind.var_positional not in kinds:
        parameters.insert(kinds.index(griffe.ParameterKind.keyword_only), "*")
    returned = f" -> {function.returns}" if function.returns is not None else ""
    one_line = f"{name}({', '.join(parameters)}){returned}"
    yield "```python"
    if len(one_line) <= 100:
        yield one_line
    else:
        yield from [f"{name}(", *(f"    {parameter}," for parameter in parameters), f"){returned}"]
    yield from ["```", ""]


def _parameter(parameter: griffe.Parameter) -> str:
    annotation = f": {parameter.annotation}" if parameter.annotation is not None else ""
    if parameter.default is None:
        return f"{parameter.name}{annotation}"
    return f"{parameter.name}{annotation}{' = ' if annotation else '='}{_code(parameter.default)}"


def _code(value: object) -> str:
    """An expression, its texts in the double quotes that the formatter asks for."""
    return re.sub(r"'([^'\"]*)'", r'"\1"', str(value))


def _field(field: griffe.Attribute, anchors: dict[str, str]) -> str:
    annotation = _type(field.annotation, anchors).replace("|", "\\|") if field.annotation is not None else ""
    default = "" if field.value is None else f"`{_default(field.value)}`".replace("|", "\\|")
    text = _one_line(field.docstring.value).replace("|", "\\|") if field.docstring else ""
    return f"| `{field.name}` | {annotation} | {default} | {text} |"


def _default(value: str | griffe.Expr) -> str:
    """The default of a field: of pydantic's and dataclasses' `Field(default, ...)` the default alone."""
    node = ast.parse(str(value), mode="eval").body
    if not (isinstance(node, ast.Call) and ast.unparse(node.func) in ("Field", "field")):
        return _code(value)
    factory = next((word.value for word in node.keywords if word.arg == "default_factory"), None)
    if factory is not None:
        return f"{ast.unparse(factory)}()"
    return ast.unparse(node.args[0]) if node.args else "required"


def _type(annotation: str | griffe.Expr, anchors: dict[str, str]) -> str:
    """A type as code, which links to its entry where it is on the page."""
    text = str(annotation).strip('"')
    return f"[`{text}`](#{anchors[text]})" if text in anchors else f"`{text}`"


def _docstring(definition: griffe.Object, anchors: dict[str, str]) -> Iterator[str]:
    if not definition.docstring:
        raise PageError(f"{definition.path}: no docstring")
    options = {"returns_multiple_items": False, "warnings": False}
    for section in definition.docstring.parse("google", **options):
        if section.kind is KINDS.text:
            yield from [section.value, ""]
            continue
        if section.kind not in TITLES:
            raise PageError(f"{definition.path}: no way to write a section of {section.kind.value}")
        yield from [f"**{TITLES[section.kind]}**", ""]
        if section.kind is KINDS.examples:
            for kind, text in section.value:
                yield from ["```pycon", text, "```", ""] if kind is KINDS.examples else [text, ""]
            continue
        for item in section.value:
            name = f"`{item.name}`" if section.kind is KINDS.parameters else ""
            annotation = _type(item.annotation, anchors) if item.annotation is not None else ""
            label = f"{name} ({annotation})" if name and annotation else name or annotation
            word = f"{item.name}: " if section.kind is KINDS.returns and item.name else ""  # "loss: ..." is no name
            yield f"- {label}: {word}{_one_line(item.description)}"
        yield ""


def _one_line(text: str) -> str:
    return " ".join(text.split())


def main(arguments: list[str]) -> int:
    """Write the page, or with `--check` compare it; returns the exit status.

    Args:
        arguments: The command line's.
    """
    try:
        page = write_page()
    except PageError as error:
        print(error)
        return 1
    if "--check" not in arguments:
        PAGE.write_text(page)
    elif not PAGE.is_file() or PAGE.read_text() != page:
        print("docs/api.md has drifted from the docstrings: run make generate")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
