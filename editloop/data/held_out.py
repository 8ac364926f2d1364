"""Choice of the tasks that a training does not learn from, by whole source images."""

from collections import defaultdict
from collections.abc import Sequence

from editloop.content import sha256_json
from editloop.data.edits_file import EditRow
from editloop.data.picture_file import file_picture_sha256


def hold_out(rows: Sequence[EditRow], least: float, salt: int | str) -> tuple[list[EditRow], list[EditRow]]:
    """Split rows into those to train on and those held out. No source image is in both.

    Source images are held out one after the other until `least` rows are; the last one always stays. The choice depends
    on the salt and the images' content alone.

    Args:
        rows: The rows.
        least: Least number of rows to hold out. Fewer are held out only where one source image would remain.
        salt: Another salt holds out other source images.

    Returns:
        The rows to train on, in their order, and the held-out rows, by source image.
    """
    by_source: dict[str, list[EditRow]] = defaultdict(list)
    for row in rows:
        by_source[file_picture_sha256(row.source)].append(row)
    held: list[EditRow] = []
    for source in sorted(by_source, key=lambda sha256: sha256_json([salt, sha256]))[:-1]:
        if len(held) >= least:
            break
        held += by_source[source]
    held_ids = {row.id for row in held}
    return [row for row in rows if row.id not in held_ids], held
