"""A demo ends well only where the lineage of every champion is complete."""

import pytest

from editloop.errors import EditLoopError
from editloop.lineage.chain import Chain
from pipelines.demo import check_lineage


def test_a_gap_in_a_lineage_is_an_error_that_names_the_model_and_the_link() -> None:
    whole, broken = Chain("models:/edit-reward@champion"), Chain("models:/editor@champion")
    broken.gap = "DVC revision: the remote's copy was damaged"
    check_lineage({"reward": whole.summary()})
    with pytest.raises(EditLoopError, match="lineage of editor: DVC revision: the remote's copy was damaged"):
        check_lineage({"reward": whole.summary(), "editor": broken.summary()})
