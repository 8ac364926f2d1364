"""Choice of the tasks that a training does not learn from, by whole images."""

from collections import defaultdict
from collections.abc import Sequence

from editloop.content import sha256_json
from editloop.data.edits_file import EditRow
from editloop.data.fingerprints import is_flat
from editloop.data.picture_file import file_picture_sha256, load_image
from editloop.data.shared_pictures import shared_picture_groups


def hold_out(rows: Sequence[EditRow], least: float, salt: int | str) -> tuple[list[EditRow], list[EditRow]]:
    """Split rows into those to train on and those held out. No source or reference image is in both.

    Source images are held out one after the other until `least` rows are; the last one always stays. Sources whose rows
    share an image, as one row's reference is another's source, are held out together; blank images join nothing. The
    choice depends on the salt and the images' content alone.

    Args:
        rows: The rows.
        least: Least number of rows to hold out. Fewer are held out only where one source image, or one group of those
            that are held out together, would remain.
        salt: Another salt holds out other source images.

    Returns:
        The rows to train on, in their order, and the held-out rows, by source image.
    """
    paths = {file_picture_sha256(path): path for row in rows for path in (row.source, *row.references)}
    pictures = [[file_picture_sha256(path) for path in (row.source, *row.references)] for row in rows]
    by_group: dict[str, list[EditRow]] = defaultdict(list)
    groups = shared_picture_groups(pictures, lambda sha256: is_flat(load_image(paths[sha256])))
    for group, row in zip(groups, rows, strict=True):
        by_group[group].append(row)
    held: list[EditRow] = []
    for group in sorted(by_group, key=lambda sha256: sha256_json([salt, sha256]))[:-1]:
        if len(held) >= least:
            break
        held += by_group[group]
    held_ids = {row.id for row in held}
    return [row for row in rows if row.id not in held_ids], held
