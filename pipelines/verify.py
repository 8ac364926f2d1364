"""Verify the lineage of a model back to the answers in Label Studio.

editloop verify models:/edit-reward@champion
editloop verify models:/editor@champion
"""

from functools import partial

from annotation.lineage_links import judgement_links
from editloop.lineage.chain import Chain
from editloop.lineage.verify import verify_lineage


def verify(model: str, *, accept_unsigned: bool = False) -> Chain:
    """Follow the chain of a registered model back to its annotators and their answers in Label Studio.

    Args:
        model: `models:/NAME@ALIAS` or `models:/NAME/VERSION`.
        accept_unsigned: Whether the chain may end, with a warning, at a campaign of release 0.2.0 or earlier, which has
            no signed record.

    Returns:
        The chain; `gap` says where it does not hold.
    """
    return verify_lineage(model, partial(judgement_links, accept_unsigned=accept_unsigned))
