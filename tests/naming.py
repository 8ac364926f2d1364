"""Checks that names and docstrings of the product code can be understood by somebody new.

    python -m tests.naming       # part of `make lint`

Four figures, each with its limit: vague local names per 1,000 lines of code, public names that are defined in more than
one file, public functions whose docstring does not describe every parameter, and exceptions from the formatter.
"""

import ast
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

PACKAGES = ("editloop", "infra", "annotation", "components", "pipelines")
VAGUE = frozenset(
    "found told one known given place kept said made asked wanted taken shown seen other whole".split()  # noqa: SIM905
)
"""Words that say nothing of what they stand for."""
MOST_VAGUE = 8.0
"""Vague names per 1,000 lines; the codebases that this one learns from have 0.2 to 2.4."""
MOST_SHARED = 0.025
"""Share of the public names that several files define."""
EXCEPTION = re.compile(r"#\s*fmt: (skip|off)")
"""What tells the formatter to leave code alone."""
ARGUMENTS = re.compile(r"^Args:\n((?:[ ]{4}.*\n?|\n)*)", re.MULTILINE)
ARGUMENT = re.compile(r"^    \*{0,2}(\w+)(?: \([^)]*\))?:", re.MULTILINE)


class Figures(NamedTuple):
    """What was counted."""

    vague: float
    """Vague names per 1,000 lines that are neither blank nor comments."""
    shared: dict[str, list[str]]
    """Files by public name, of the names that several files define."""
    public_names: int
    undescribed: list[str]
    """`FILE:LINE NAME: PARAMETERS` of functions whose docstring leaves parameters out."""
    exceptions: list[str]
    """`FILE:LINE` of every line that the formatter is told to leave alone."""

    def faults(self) -> list[str]:
        """A sentence for each limit that does not hold."""
        faults = []
        if self.vague > MOST_VAGUE:
            faults.append(f"{self.vague:.1f} vague names per 1,000 lines, at most {MOST_VAGUE:g}: name the thing")
        if len(self.shared) > MOST_SHARED * self.public_names:
            names = "; ".join(f"{name}: {', '.join(files)}" for name, files in sorted(self.shared.items()))
            faults.append(f"{len(self.shared)} of {self.public_names} public names are in several files: {names}")
        faults += [f"{where}: not in the docstring's Args" for where in self.undescribed]
        faults += [f"{where}: `fmt: skip`; let the formatter write it" for where in self.exceptions]
        return faults


def count(sources: Mapping[str, str]) -> Figures:
    """Count the figures of Python files.

    Args:
        sources: Text by path.
    """
    vague = lines = 0
    public: dict[str, list[str]] = defaultdict(list)
    undescribed: list[str] = []
    exceptions: list[str] = []
    for path, text in sources.items():
        tree = ast.parse(text)
        lines += sum(1 for line in text.splitlines() if line.strip() and not line.strip().startswith("#"))
        names = (getattr(node, "id", None) or getattr(node, "arg", None) for node in ast.walk(tree))
        vague += sum(name in VAGUE for name in names)
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                public[node.name].append(path)
        undescribed += [
            f"{path}:{function.lineno} {function.name}: {', '.join(missing)}"
            for function, missing in _undescribed(tree, in_class=False)
        ]
        exceptions += [f"{path}:{number}" for number, line in enumerate(text.splitlines(), 1) if EXCEPTION.search(line)]
    shared = {name: files for name, files in public.items() if len(files) > 1}
    return Figures(1000 * vague / max(1, lines), shared, len(public), undescribed, exceptions)


def _undescribed(
    node: ast.Module | ast.ClassDef, *, in_class: bool
) -> Iterator[tuple[ast.FunctionDef | ast.AsyncFunctionDef, list[str]]]:
    """Public functions below `node` with the parameters that their docstrings do not describe."""
    for member in node.body:
        if isinstance(member, ast.ClassDef) and not member.name.startswith("_"):
            yield from _undescribed(member, in_class=True)
        if not isinstance(member, ast.FunctionDef | ast.AsyncFunctionDef) or not _is_public(member.name):
            continue
        docstring = ast.get_docstring(member) or ""
        if in_class and not docstring and member.name != "__init__":
            continue  # what it overrides has one
        if member.name.endswith("_command"):
            continue  # Typer describes its options
        if any(word in ast.unparse(decorator) for decorator in member.decorator_list for word in GENERATED):
            continue
        section = ARGUMENTS.search(docstring)
        described = set(ARGUMENT.findall(section[1])) if section else set()
        parameters = [*member.args.posonlyargs, *member.args.args, *member.args.kwonlyargs]
        if missing := [one.arg for one in parameters if one.arg not in {"self", "cls", *described}]:
            yield member, missing


GENERATED = ("command", "callback", "validator", "overload", "dsl.")
"""Decorators of functions whose parameters are described elsewhere: Typer's options, pydantic's validators, KFP."""


def _is_public(name: str) -> bool:
    return name == "__init__" or not name.startswith("_")


def main() -> None:
    """Count the product code below the working folder; exits with 1 where a limit does not hold."""
    listed = subprocess.check_output(["git", "ls-files", *(f"{package}/**/*.py" for package in PACKAGES)], text=True)
    paths = sorted({*listed.split(), *(str(path) for package in PACKAGES for path in Path(package).glob("*.py"))})
    figures = count({path: Path(path).read_text() for path in paths if Path(path).is_file()})
    faults = figures.faults()
    print("\n".join(faults) or f"names: {figures.vague:.1f} vague per 1,000 lines, {len(figures.shared)} shared")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
