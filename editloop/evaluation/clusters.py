"""Clusters of dependent tasks: those that share an image, which `editloop.statistics.bootstrap` resamples together."""

from collections.abc import Sequence

from editloop.data.edits_file import EditRow
from editloop.data.picture_file import file_picture_sha256


def joined_clusters(shown: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """Return the name of each unit's cluster: equal for units that share a name, directly or through other units.

    Args:
        shown: For each of the N units, what it depends on: its source image (or another name of its own cluster)
            first, then its reference images.

    Returns:
        N names, each the first name of the cluster's first unit. A unit that shares nothing keeps its own first name.
    """
    from scipy.cluster.hierarchy import DisjointSet

    joined = DisjointSet({name for names in shown for name in names})
    for first, *others in shown:
        for other in others:
            joined.merge(first, other)
    named: dict[str, str] = {}
    return tuple(named.setdefault(joined[names[0]], names[0]) for names in shown)


def clusters_of_rows(rows: Sequence[EditRow]) -> tuple[str, ...]:
    """Return the clusters of tasks of an edits file, by the pixels of their source and reference images.

    Args:
        rows: The N tasks.

    Returns:
        N names of clusters, see `joined_clusters`.

    Raises:
        EditLoopError: An image cannot be read.
    """
    return joined_clusters([[file_picture_sha256(path) for path in (row.source, *row.references)] for row in rows])
