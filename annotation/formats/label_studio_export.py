"""Export of judgements as tasks that a Label Studio project imports, with their pictures.

    tasks.json       what "Import" of a project takes: a page a task, an annotation for each annotator
    labelling.xml    the project's labelling config
    images/          the pictures, which Label Studio serves from its local-files storage

An import has no campaign behind it: no record, no gold, no closing. It is for looking at judgements, and for labelling
in a Label Studio that is not EditLoop's.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from annotation.campaigns.labelling import FEWEST, MOST, TINY, labelling_config, result_of, task_data
from annotation.campaigns.pictures import FolderStore, shown_pictures
from annotation.campaigns.plan import references_of
from annotation.formats.editreward_pairs import Ratings
from annotation.formats.rated_pairs import ExportReport, judged_task, picture_path, ratings_by_annotator
from editloop.content import complete_folder, sha256_json, write_file
from editloop.data.picture_file import upright_size
from editloop.data.vocabulary import AXES, EditTask, Judgement, Page
from editloop.errors import EditLoopError
from editloop.progress import track

IMAGES = "images"


def export_label_studio(
    judgements: Sequence[Judgement],
    tasks: Sequence[EditTask],
    candidates: Path,
    output: Path,
    *,
    with_annotators: bool = False,
) -> ExportReport:
    """Export judgements as a folder that a Label Studio project imports.

    Label Studio's LOCAL_FILES_DOCUMENT_ROOT is to be the folder that holds `output`, and the project needs a
    local-files storage of `output`/images. Only judged tasks are exported.

    Args:
        judgements: The judgements to export.
        tasks: Tasks of the candidates folder.
        candidates: The candidates folder, which holds the images.
        output: Folder to write.
        with_annotators: Whether to write the annotators' names, under `annotators` of a task's data in the order of
            its annotations.

    Returns:
        The number of tasks, and what was left out.

    Raises:
        EditLoopError: A judged task is not in `tasks`, an image is missing or changed, or no task can be shown.
    """
    left_out: Counter[str] = Counter()
    tasks_by_id = {task.task_id: task for task in tasks}
    ratings = ratings_by_annotator(judgements)
    shown = [judged_task(tasks_by_id, key, candidates) for key in sorted(ratings)]
    pages = [task for task in shown if FEWEST <= len(task.candidates) <= MOST]
    if not pages:
        raise EditLoopError(f"{candidates}: no judged task has {FEWEST} to {MOST} edits, which a page can show.")
    if len(pages) < len(shown):
        left_out[f"tasks with fewer than {FEWEST} or more than {MOST} edits"] = len(shown) - len(pages)
    places = max(len(task.candidates) for task in pages)
    facts = {"tasks": len(pages)}
    with complete_folder(output, facts) as folder:
        store, tiny = FolderStore(folder), True
        for task in track(pages, "pictures copied", total=len(pages)):
            pictures = {image: picture_path(candidates, image) for image in _images(task)}
            tiny = tiny and all(max(upright_size(path)) <= TINY for path in pictures.values())
            store.put(IMAGES, pictures)
        references = references_of(pages)
        config = labelling_config(places, tiny=tiny, references=references)
        write_file(folder / "labelling.xml", config)
        names = [path.name for path in (folder / IMAGES).iterdir()]
        address = shown_pictures(FolderStore(output.absolute().parent), f"{quote(output.name)}/{IMAGES}", names)
        with (folder / "tasks.json").open("w", encoding="utf-8") as stream:
            separator = "["
            for task in pages:
                page = _page(task, places, config)
                annotations, people = [], []
                for who, result in _results(page, ratings[task.task_id], left_out, candidates):
                    annotations.append({"result": result})
                    people.append(who)
                data: dict[str, Any] = dict(task_data(page, address, references))
                if with_annotators:
                    data["annotators"] = people
                stream.write(separator + json.dumps({"data": data, "annotations": annotations}, ensure_ascii=False))
                separator = ",\n"
            stream.write("]\n")
    return ExportReport(len(pages), dict(left_out))


def _images(task: EditTask) -> list[str]:
    return [task.source, *task.references, *(candidate.image for candidate in task.candidates)]


def _page(task: EditTask, places: int, config: str) -> Page:
    """Return the page of a task: its candidates by id, which tells nothing of their editors; the first ones repeat."""
    ordered = sorted(task.candidates, key=lambda candidate: candidate.candidate_id)
    slots = [ordered[place % len(ordered)] for place in range(places)]
    images = tuple(candidate.image for candidate in slots)
    return Page(
        key=sha256_json([task.instruction, task.source, images, config, *task.references])[:32],
        kind="task",
        task_id=task.task_id,
        instruction=task.instruction,
        source=task.source,
        references=task.references,
        candidates=tuple(candidate.candidate_id for candidate in slots),
        images=images,
        overlap=1,
    )


def _results(
    page: Page, ratings: dict[str, dict[str, Ratings]], left_out: Counter[str], candidates: Path
) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Yield each annotator of a page, and the ratings as Label Studio's annotation result."""
    for who, levels in sorted(ratings.items()):
        if strangers := len(levels.keys() - set(page.candidates)):
            left_out[f"judgements of edits that {candidates} does not have"] += strangers
        by_slot = [
            dict(zip(AXES, levels[candidate], strict=True)) if candidate in levels else {}
            for candidate in page.candidates
        ]
        if result := result_of(by_slot):
            yield who, result
