"""Set Label Studio's own counters of a campaign right: they decide its progress bar and which pages it serves.

Label Studio stores an annotation, counts those of the task, and then writes the count and `is_labeled` (enough people
answered) into the task's row, without a lock. Of two submissions at once the slower one may write the smaller count. A
page that is complete then counts as open for good. A change of a task's overlap leaves `is_labeled` as it was.
"""

from collections import Counter
from collections.abc import Mapping

from annotation.campaigns.answer_export import ExportedTask
from annotation.campaigns.answers import wanted_answers
from annotation.campaigns.label_studio import LabelStudioApi
from annotation.campaigns.lead_queue import Snapshot
from annotation.campaigns.project import live_tasks
from annotation.campaigns.record import CampaignRecord
from editloop.data.vocabulary import Page
from infra.settings import ServiceSettings


def repair_counters(
    settings: ServiceSettings, record: CampaignRecord, pages: Mapping[str, Page], live: Snapshot
) -> int:
    """Correct the tasks whose counters differ from their annotations. No annotation is touched.

    It costs one request where the project's number of finished tasks and every task's number of annotations are right.

    Args:
        settings: Address and token of Label Studio.
        record: The campaign's record.
        pages: The campaign's pages by key.
        live: Its answers, just exported.

    Returns:
        The number of tasks that were corrected.
    """
    api, campaign, export = LabelStudioApi(settings), record.campaign, live.votes
    given = Counter(page for page, _ in live.answers.counting())
    done = {key: given[key] >= wanted for key, wanted in wanted_answers(record, pages, live.answers).items()}
    finished = sum(done.get(task.key, False) for task in export.tasks)
    project = api.call("GET", f"/api/projects/{campaign.project_id}/", params={"include": "id,finished_task_number"})
    counts_are_right = all(task.total_annotations == _submitted(task) for task in export.tasks)
    if counts_are_right and project["finished_task_number"] == finished:
        return 0
    exported = {task.task_id: task for task in export.tasks}
    corrections: list[tuple[int, dict[str, int | bool]]] = []
    for row in live_tasks(api, campaign, "task_only"):
        if (task := exported.get(row["id"])) is None or task.key not in done:
            continue
        correct = {"total_annotations": _submitted(task), "is_labeled": done[task.key]}
        if any(row[name] != value for name, value in correct.items()):
            corrections.append((task.task_id, correct))
    list(api.each(lambda change: api.call("PATCH", f"/api/tasks/{change[0]}/", json=change[1]), corrections))
    return len(corrections)


def _submitted(task: ExportedTask) -> int:
    return sum(not annotation["was_cancelled"] for annotation in task.annotations)
