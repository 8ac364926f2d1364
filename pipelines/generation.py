"""Write what follows from the catalogue of stages and pipelines: `make generate`.

    python -m pipelines.generation            # writes the files
    python -m pipelines.generation --check    # names those that differ, and exits with 1

The files are components/*/component.py, pipelines/preflight_components.py, docs/stages.md, params.schema.json, dvc.yaml
and pipelines/compiled/*.yaml. In docs/sizing.md, the output below each `$ editloop plan` is written.
"""

import io
import json
import re
import shlex
import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path

import jinja2

from editloop.environment import environment_variables
from editloop.lineage.stage import Stage
from pipelines.catalogue import PIPELINES, STAGES, stage_parameters
from pipelines.dvc_stages import dvc_stages, wrapped
from pipelines.preflight import preflight_fields
from pipelines.settings import LoopSettings
from pipelines.stages import stage_example

TOP = Path(__file__).parent.parent
SIZING = Path("docs/sizing.md")
PLAN_BLOCK = re.compile(r"^```\n\$ editloop plan(.*)\n(?:.*\n)*?```$", re.MULTILINE)
"""A command in SIZING and its output."""
PLAN_COLUMNS = "100"
"""Width of the output."""


def generated_files() -> dict[Path, str]:
    """Return the text of every generated file, by its path below the project's folder."""
    components = {Path("components", name, "component.py"): component_source(stage) for name, stage in STAGES.items()}
    schema = LoopSettings.model_json_schema()
    return {
        **components,
        Path("pipelines/preflight_components.py"): preflight_source(),
        Path("docs/stages.md"): reference_page(),
        Path("params.schema.json"): json.dumps(schema, indent=2) + "\n",
        Path("dvc.yaml"): _render("dvc.yaml.j2", stages=dvc_stages()),
        SIZING: PLAN_BLOCK.sub(_plan_block, (TOP / SIZING).read_text()),
    }


def component_source(stage: Stage) -> str:
    """Return the source of a stage's KFP component, formatted as ruff does.

    Args:
        stage: The stage.
    """
    return _render("component.py.j2", stage=stage, parameters=stage_parameters(stage))


def preflight_source() -> str:
    """Return the source of the KFP components of the pipelines' first steps."""
    outputs = {name: preflight_fields(pipeline) for name, pipeline in PIPELINES.items()}
    return _render("preflight_components.py.j2", pipelines=PIPELINES.values(), outputs=outputs)


def reference_page() -> str:
    """Return the page on all stages and pipelines, in Markdown."""
    parameters = {name: stage_parameters(stage) for name, stage in STAGES.items()}
    examples = {name: stage_example(stage) for name, stage in STAGES.items()}
    return _render(
        "stages.md.j2", stages=STAGES.values(), parameters=parameters, examples=examples, pipelines=PIPELINES.values()
    )


def _plan_block(block: re.Match[str]) -> str:
    """Return the block with what the command prints now."""
    from typer.main import get_command

    from pipelines.cli import app

    output = io.StringIO()
    with environment_variables(COLUMNS=PLAN_COLUMNS), redirect_stdout(output):
        get_command(app).main(["plan", *shlex.split(block[1])], standalone_mode=False)
    lines = [line.rstrip() for line in output.getvalue().splitlines()]
    return "\n".join(["```", f"$ editloop plan{block[1]}", *lines, "```"])


def _literal(value: object) -> str:
    """Return a Python literal with double quotes."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def _render(template: str, **values: object) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # Python, YAML and Markdown, no HTML
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"literal": _literal, "wrapped": wrapped}
    return environment.get_template(template).render(**values)


def write_generated(check: bool) -> list[Path]:
    """Write the generated files that differ, and return their paths.

    Args:
        check: Write nothing.
    """
    different = [path for path, text in generated_files().items() if _differs(path, text, check)]
    from infra.profile import read_profile
    from pipelines.compilation import COMPILED, EXAMPLE_PROFILE, compile_pipelines

    with tempfile.TemporaryDirectory() as folder:
        for path in compile_pipelines(Path(folder), read_profile(EXAMPLE_PROFILE)):
            target = COMPILED.relative_to(TOP) / path.name
            different += [target] if _differs(target, path.read_text(), check) else []
    return different


def _differs(path: Path, text: str, check: bool) -> bool:
    """Return whether a file has another text; write it where it may be written."""
    if (TOP / path).is_file() and (TOP / path).read_text() == text:
        return False
    if not check:
        (TOP / path).write_text(text)
    return True


def main(arguments: list[str]) -> int:
    """Write the generated files, or check them.

    Args:
        arguments: `--check` writes nothing and names the files that differ.

    Returns:
        1 where a checked file differs, else 0.
    """
    check = "--check" in arguments
    different = write_generated(check)
    for path in different:
        print(f"{path} differs from the catalogue of stages: run `make generate`" if check else path)
    return int(check and bool(different))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
