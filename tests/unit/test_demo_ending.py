"""A demo ends well only where the lineage of each model is complete; one that no gate let through yet has one too."""

import pytest

from editloop.errors import EditLoopError
from editloop.lineage.chain import Chain
from pipelines import demo
from pipelines.demo import check_lineage, lineages


def test_a_gap_in_a_lineage_is_an_error_that_names_the_model_and_the_link() -> None:
    whole, broken = Chain("models:/edit-reward@champion"), Chain("models:/editor@champion")
    broken.gap = "DVC revision: the remote's copy was damaged"
    check_lineage({"reward": whole.summary()})
    with pytest.raises(EditLoopError, match="lineage of editor: DVC revision: the remote's copy was damaged"):
        check_lineage({"reward": whole.summary(), "editor": broken.summary()})


@pytest.mark.parametrize(
    ("registered", "followed"),
    [
        (
            ["edit-reward@champion", "edit-reward@challenger", "editor@champion"],
            ["edit-reward@champion", "editor@champion"],
        ),
        (["edit-reward@champion", "editor@challenger"], ["edit-reward@champion", "editor@challenger"]),
        (["edit-reward@challenger"], ["edit-reward@challenger"]),
    ],
)
def test_a_model_that_its_gate_held_is_followed_by_its_challenger(
    registered: list[str], followed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "find_version", lambda model: model.removeprefix("models:/") in registered)
    monkeypatch.setattr(demo, "verify", Chain)
    assert [chain.model.removeprefix("models:/") for chain in lineages().values()] == followed
