"""Rows of edits that share an image: what must stay on one side of a split."""

from collections.abc import Callable, Sequence


def shared_picture_groups(pictures: Sequence[Sequence[str]], is_blank: Callable[[str], bool]) -> list[str]:
    """Return the group of each row: rows that share an image, directly or through other rows, are in one group.

    Args:
        pictures: Names of each row's images, the source first, then the references.
        is_blank: Returns whether the image of this name is blank, such as a plain white one, which joins nothing. It is
            called only for images that rows of several sources share.

    Returns:
        The name of each row's group: the smallest name of a source in it. Rows without references are grouped by
        source.
    """
    from scipy.cluster.hierarchy import DisjointSet

    joined = DisjointSet({source for source, *_ in pictures})
    first: dict[str, str] = {}
    blank: dict[str, bool] = {}
    for source, *references in pictures:
        for picture in (source, *references):
            first_source = first.setdefault(picture, source)
            if first_source == source:
                continue
            if picture not in blank:
                blank[picture] = is_blank(picture)
            if not blank[picture]:
                joined.merge(first_source, source)
    smallest = {source: min(sources) for sources in joined.subsets() for source in sources}
    return [smallest[source] for source, *_ in pictures]
