"""Checks how many expressions of the product code have no type.

    python -m tests.typing_share         # the type check of `make test`

mypy counts the expressions of type `Any` in each module. The maths and the product code as a whole each have a limit.
mypy keeps no cache while it counts, so this takes longer than the type check of `make lint`.
"""

import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

PACKAGES = ("editloop", "infra", "annotation", "components", "pipelines")
MATHS = (
    "editloop.statistics",
    "editloop.training.edit_reward.group_loss",
    "editloop.training.edit_reward.losses",
    "editloop.training.editor_rl.advantages",
    "editloop.training.editor_rl.nft",
    "editloop.training.editor_rl.policy_loss",
    "editloop.training.editor_rl.sde",
    "editloop.training.flow_matching",
)
"""Modules and packages of formulas."""
MOST_IN_MATHS = 0.03
MOST_IN_PRODUCT = 0.05
"""Shares of `Any` that the code had when the limits were set, rounded up: lower them where the code gets better."""
ROW = re.compile(r"^\s*(?P<module>[\w.]+)\s+(?P<anys>\d+)\s+(?P<expressions>\d+)\s+[\d.]+%$", re.MULTILINE)
"""A module's row in mypy's `any-exprs.txt`."""


class Share(NamedTuple):
    """Expressions of type `Any` among all."""

    anys: int
    expressions: int

    @property
    def share(self) -> float:
        """0..1; 0 without expressions."""
        return self.anys / self.expressions if self.expressions else 0.0


def read_report(text: str) -> dict[str, Share]:
    """Return each module's share.

    Args:
        text: Content of mypy's `any-exprs.txt`.
    """
    rows = {row["module"]: Share(int(row["anys"]), int(row["expressions"])) for row in ROW.finditer(text)}
    rows.pop("Total", None)
    return rows


def share_of(shares: Mapping[str, Share], names: Sequence[str]) -> Share:
    """Return the share of some modules together.

    Args:
        shares: Share by module.
        names: Modules, or packages with all that is below them.
    """
    chosen = [share for module, share in shares.items() if any(f"{module}.".startswith(f"{name}.") for name in names)]
    return Share(sum(share.anys for share in chosen), sum(share.expressions for share in chosen))


def faults(shares: Mapping[str, Share]) -> list[str]:
    """Return a sentence for each limit that does not hold, with the modules that have most `Any`.

    Args:
        shares: Share by module.
    """
    sentences = []
    for what, names, limit in (("the maths", MATHS, MOST_IN_MATHS), ("the product code", PACKAGES, MOST_IN_PRODUCT)):
        part = share_of(shares, names)
        if not part.expressions:
            sentences.append(f"{what}: mypy's report has no row of it; correct its names in tests/typing_share.py")
        elif part.share > limit:
            listed = {module: share for module, share in shares.items() if share_of({module: share}, names).expressions}
            most = sorted(listed, key=lambda module: -listed[module].anys)[:5]
            sentences.append(
                f"{part.share:.1%} of the expressions of {what} are Any, at most {limit:.1%}: give types, for instance "
                f"in {', '.join(f'{module} ({listed[module].anys})' for module in most)}"
            )
    return sentences


def main() -> None:
    """Count with mypy's own settings; exits with 1 where a limit does not hold or mypy finds an error."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-m", "mypy", "--any-exprs-report", folder], capture_output=True, text=True
        )
        if done.returncode:
            sys.exit(done.stdout + done.stderr)
        shares = read_report((Path(folder) / "any-exprs.txt").read_text())
    if sentences := faults(shares):
        sys.exit("\n".join(sentences))
    maths, product = share_of(shares, MATHS), share_of(shares, PACKAGES)
    print(f"Any: {maths.share:.1%} of the expressions of the maths, {product.share:.1%} of the product code")


if __name__ == "__main__":
    main()
