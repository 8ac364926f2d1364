"""Calls that a stranger's file or request could turn into code, or into a guess: the source has none of them.

The search is by syntax, over every module of the packages. Each rule is shown a planted violation first.
"""

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

PACKAGES = ("editloop", "infra", "annotation", "components", "pipelines")
TOP = Path(__file__).parents[2]
SOURCES = sorted(path for package in PACKAGES for path in (TOP / package).rglob("*.py"))
SECRETS = re.compile(r"(?:^|_)(token|secret|password|signature|credential|api_key)$")
"""Names that hold what a stranger would guess letter by letter, if it were compared with `==`."""
CODE_OF_OTHERS = (
    "eval",
    "exec",
    "os.popen",
    "os.system",
    "cloudpickle.load",
    "cloudpickle.loads",
    "dill.load",
    "dill.loads",
    "joblib.load",
    "marshal.load",
    "marshal.loads",
    "pickle.load",
    "pickle.loads",
    "pickle.Unpickler",
    "shelve.open",
    "torch.load",
    "torch.hub.load",
    "yaml.full_load",
    "yaml.load",
    "yaml.unsafe_load",
)
"""Calls that run code which a file holds."""
ARCHIVES = ("shutil.unpack_archive", "tarfile.open", "tarfile.TarFile", "zipfile.ZipFile")
"""Calls that open an archive. EditLoop takes none: their entries could lead out of a folder, or grow without end."""
OPTIONS = {
    "allow_pickle": True,
    "follow_redirects": True,
    "shell": True,
    "trust_remote_code": True,
    "verify": False,
    "weights_only": False,
}
"""Options with the value that opens a door."""
ALLOWED = {
    ("annotation/campaigns/accounts.py", "follow_redirects"),
    ("annotation/campaigns/label_studio.py", "follow_redirects"),
    ("infra/label_studio_token.py", "follow_redirects"),
    ("pipelines/generation.py", "Environment"),
    ("editloop/datasets/hub_folder.py", "Environment"),
    ("editloop/lineage/model_card.py", "Environment"),
    ("editloop/lineage/run_claim.py", "experiment.tags.get(TOKEN_TAG) != token"),
    ("editloop/settings_file.py", "yaml.load"),
}
"""Label Studio redirects to its own pages (`test_redirects.py`). The other templates are of Python, YAML and Markdown,
whose texts from outside are escaped by `cell` (`test_markup.py`). A claim's token is the claimant's own mark, not a
secret. YAML is read by a SafeLoader with limits (`test_text_file.py`)."""


def called(node: ast.Call) -> str:
    """The name of what is called, such as torch.load."""
    return ast.unparse(node.func)


def foreign_code(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and called(node) in CODE_OF_OTHERS + ARCHIVES:
            yield called(node)
        if isinstance(node, ast.ImportFrom):
            yield from (
                f"{node.module}.{alias.name}"
                for alias in node.names
                if f"{node.module}.{alias.name}" in CODE_OF_OTHERS + ARCHIVES
            )


def open_options(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and isinstance(node.value, ast.Constant) and node.arg in OPTIONS:
            yield from [node.arg] * (node.value.value is OPTIONS[node.arg])


def compared_secrets(tree: ast.AST) -> Iterator[str]:
    """Comparisons with == or != of two values of which one is a secret, unless the other one is a constant."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Compare) or not any(isinstance(kind, ast.Eq | ast.NotEq) for kind in node.ops):
            continue
        sides = [node.left, *node.comparators]
        names = [ast.unparse(side).split("(")[0].split(".")[-1] for side in sides]
        if any(SECRETS.search(name) for name in names) and not any(isinstance(side, ast.Constant) for side in sides):
            yield ast.unparse(node)


def plain_templates(tree: ast.AST) -> Iterator[str]:
    """Environments of jinja2 whose values are not escaped."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and called(node).split(".")[-1] == "Environment":
            escapes = {word.arg: word.value for word in node.keywords}.get("autoescape")
            if not (isinstance(escapes, ast.Constant) and escapes.value is True):
                yield "Environment"


RULES: dict[str, tuple[Callable[[ast.AST], Iterator[str]], tuple[str, ...]]] = {
    "code or archives of others": (
        foreign_code,
        ("torch.load(path)", "from pickle import loads", "tarfile.open(path)", "eval(text)", "yaml.load(text)"),
    ),
    "an option that opens a door": (
        open_options,
        (
            "run(x, shell=True)",
            "load(x, trust_remote_code=True)",
            "Client(verify=False)",
            "load(x, weights_only=False)",
        ),
    ),
    "a secret compared letter by letter": (
        compared_secrets,
        ("token == request.token", "if headers.get_secret() != self.secret: pass", "password == given"),
    ),
    "a page that escapes nothing": (
        plain_templates,
        ("Environment(loader=x)", "jinja2.Environment(autoescape=False)"),
    ),
}


@pytest.mark.parametrize("rule", RULES)
def test_the_source_has_none(rule: str) -> None:
    search, planted = RULES[rule]
    for violation in planted:
        assert list(search(ast.parse(violation))), f"{violation} is not found"
    found = {
        (path.relative_to(TOP).as_posix(), name) for path in SOURCES for name in search(ast.parse(path.read_text()))
    }
    assert found - ALLOWED == set()
    assert len(SOURCES) > 300


def test_every_exception_is_still_one() -> None:
    searches = [search for search, _ in RULES.values()]
    found = {
        (path.relative_to(TOP).as_posix(), name)
        for path in SOURCES
        for search in searches
        for name in search(ast.parse(path.read_text()))
    }
    assert found == ALLOWED


def test_no_template_of_a_page_leaves_a_value_unescaped() -> None:
    pages = sorted(path for package in PACKAGES for path in (TOP / package).rglob("*.html.j2"))
    assert len(pages) > 10
    for page in pages:
        assert not re.search(r"[^'\s]\s*\|\s*safe\b|autoescape\s+false", page.read_text()), page  # but for literals
