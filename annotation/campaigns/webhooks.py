"""Webhooks of campaigns' projects, by which Label Studio tells at once that answers came.

Label Studio's community edition has webhooks of single projects only, so each campaign's project gets one.
"""

from collections.abc import Iterable
from typing import TypedDict

from annotation.campaigns.campaign import Campaign
from annotation.campaigns.label_studio import LabelStudioApi

ACTIONS = ("ANNOTATION_CREATED", "ANNOTATION_UPDATED", "ANNOTATIONS_DELETED")
"""What Label Studio tells. Changes of the project are none of it, because a closing is such a change."""


class Webhook(TypedDict):
    """A webhook as Label Studio's API describes it, as far as this module needs it."""

    id: int
    project: int | None
    url: str
    headers: dict[str, str]


def ensure_webhooks(api: LabelStudioApi, campaigns: Iterable[Campaign], url: str, secret: str) -> None:
    """Let Label Studio send a request to an address whenever answers of a campaign change.

    A project that has this webhook keeps it; it gets the secret where it has another one.

    Args:
        api: Label Studio, as the account that owns the campaigns.
        campaigns: The campaigns.
        url: Address that gets the requests, as Label Studio reaches it.
        secret: Sent as `Authorization: Bearer SECRET`.

    Raises:
        EditLoopError: Label Studio does not answer, or refuses.
    """
    headers = {"Authorization": f"Bearer {secret}"}
    webhooks: list[Webhook] = api.call("GET", "/api/webhooks/")
    present = {webhook["project"]: webhook for webhook in webhooks if webhook["url"] == url}
    body = {"url": url, "headers": headers, "send_payload": False, "send_for_all_actions": False, "actions": ACTIONS}
    for campaign in campaigns:
        webhook = present.get(campaign.project_id)
        if webhook is None:
            api.call("POST", "/api/webhooks/", json=body | {"project": campaign.project_id})
        elif webhook["headers"] != headers:
            api.call("PATCH", f"/api/webhooks/{webhook['id']}/", json=body)  # actions that are left out are removed
