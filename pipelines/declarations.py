"""Parameters of stages and pipelines, read from their source, so that help does not import Kubeflow."""

import ast
import re
from pathlib import Path
from typing import NamedTuple

ARGUMENT = re.compile(r"(\w+): (.*)")


class Parameter(NamedTuple):
    """One parameter of a component or a pipeline."""

    name: str
    type: str
    """As the source writes it: `str`, `int`, `dsl.Input[dsl.Dataset]`."""
    default: str | None
    """As the source writes it; None where a value is required."""
    help: str


def declared_parameters(path: Path, function: str) -> dict[str, Parameter]:
    """Read the parameters of a function, with the help that its docstring's Args give.

    Args:
        path: Python file.
        function: Name of a function in it.

    Returns:
        Parameters by name, in the order of the signature.
    """
    nodes = ast.parse(path.read_text()).body
    definition = next(node for node in nodes if isinstance(node, ast.FunctionDef) and node.name == function)
    texts = _argument_texts(ast.get_docstring(definition) or "")
    arguments = [*definition.args.args, *definition.args.kwonlyargs]
    positional_defaults = [None] * (
        len(definition.args.args) - len(definition.args.defaults)
    ) + definition.args.defaults
    defaults = [*positional_defaults, *definition.args.kw_defaults]
    return {
        argument.arg: Parameter(
            argument.arg,
            ast.unparse(argument.annotation) if argument.annotation else "",
            None if default is None else ast.unparse(default),
            texts.get(argument.arg, ""),
        )
        for argument, default in zip(arguments, defaults, strict=True)
    }


def _argument_texts(docstring: str) -> dict[str, str]:
    """Return the texts below `Args:`, by parameter. A line with a deeper indent continues the one before."""
    texts: dict[str, str] = {}
    _, _, section = docstring.partition("Args:\n")
    name = ""
    for line in section.splitlines():
        if line.strip() and not line.startswith("    "):
            break
        match = ARGUMENT.fullmatch(line.strip())
        if match and not line.startswith("     "):
            name = match[1]
            texts[name] = match[2]
        elif line.strip() and name:
            texts[name] += f" {line.strip()}"
    return texts
