"""Verify the lineage of a model back to the answers in Label Studio.

editloop verify models:/edit-reward@champion
editloop verify models:/editor@champion
"""

from annotation.lineage_links import judgement_links
from editloop.lineage.chain import Chain
from editloop.lineage.verify import verify_lineage


def verify(model: str) -> Chain:
    """Follow the chain of a registered model back to its annotators and their answers in Label Studio.

    Args:
        model: `models:/NAME@ALIAS` or `models:/NAME/VERSION`.

    Returns:
        The chain; `gap` says where it does not hold.
    """
    return verify_lineage(model, judgement_links)
