"""Which mutants a check runs: the named ones, the accepted ones, and a sample of all others that stays the same."""

import ast
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import yaml

from tests.mutation.operators import mutated, sites


class CheckError(Exception):
    """A list of the check does not fit the sources: the message says which entry, and what to do."""


class Named(NamedTuple):
    """A mistake that must never pass the tests again."""

    module: str
    text: str
    """Stands in the module exactly once."""
    mistake: str
    """What takes its place."""


class Mutant(NamedTuple):
    """A module with one mistake."""

    module: str
    line: int
    text: str
    """The line, stripped."""
    mutation: str
    """`before -> after`."""
    tree: ast.Module
    must_die: bool

    @property
    def key(self) -> tuple[str, str, str]:
        """What an accepted entry names: it holds wherever the line moves."""
        return self.module, self.text, self.mutation


def read_accepted(path: Path) -> dict[tuple[str, str, str], str]:
    """Reasons of the accepted survivors, by module, line text and mutation. CheckError where one has no reason."""
    accepted = {}
    for entry in yaml.safe_load(path.read_text()) or []:
        if set(entry) != {"module", "line", "mutation", "reason"} or not str(entry["reason"]).strip():
            raise CheckError(f"{path}: {entry}: an entry has module, line, mutation and a reason.")
        accepted[entry["module"], entry["line"], entry["mutation"]] = entry["reason"]
    return accepted


def select(
    root: Path,
    modules: Sequence[str],
    named: Sequence[Named],
    accepted: Mapping[tuple[str, str, str], str],
    per_thousand: int,
) -> list[Mutant]:
    """The mutants to run, module after module in the order of their lines.

    Args:
        root: The repository's root.
        modules: Paths below it.
        named: Mistakes that always run.
        accepted: Keys of the survivors that were accepted, which always run too.
        per_thousand: Share of the other mutants that run. A mutant is in the sample by a hash of its key, so that the
            sample of a line stays what it is while other lines change.

    Raises:
        CheckError: A named mistake's text is not in its module exactly once.
    """
    selected = []
    for module in modules:
        source = (root / module).read_text()
        lines = source.splitlines()
        chosen = [_named(one, source) for one in named if one.module == module]
        for number, site in enumerate(sites(ast.parse(source))):
            text, mutation = lines[site.line - 1].strip(), f"{site.before} -> {site.after}"
            key = (module, text, mutation)
            if key in accepted or int(sha256(repr(key).encode()).hexdigest()[:8], 16) % 1000 < per_thousand:
                chosen.append(Mutant(*key[:1], site.line, text, mutation, mutated(source, number), False))
        selected += sorted(chosen, key=lambda one: one.line)
    return selected


def _named(one: Named, source: str) -> Mutant:
    if source.count(one.text) != 1:
        raise CheckError(
            f"{one.module}: {one.text!r} is there {source.count(one.text)} times; a named mutant's text must be there "
            "exactly once. Write the entry anew."
        )
    line = source[: source.index(one.text)].count("\n") + 1
    tree = ast.parse(source.replace(one.text, one.mistake))
    return Mutant(one.module, line, source.splitlines()[line - 1].strip(), f"{one.text} -> {one.mistake}", tree, True)
