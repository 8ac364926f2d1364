"""The people of an open campaign: annotators join, leave and are replaced, and another lead takes over.

Answers stay. Label Studio gives every member the pages of a project that still need answers, so the pages of somebody
who leaves go to the others by themselves; answers that an account gives after it was removed do not count.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from annotation.campaigns.accounts import member_ids, spelling
from annotation.campaigns.record import CampaignRecord, PeopleChanged, append_event, now, read_record
from editloop.errors import EditLoopError
from editloop.lineage.signing import SigningSettings
from infra.settings import ServiceSettings


def check_people(record: CampaignRecord, annotators: Sequence[str]) -> None:
    """Check that a campaign could go on with these annotators.

    Args:
        record: The campaign's record.
        annotators: Names of all annotators that it is to have.

    Raises:
        EditLoopError: A name is given twice, or there are fewer people than its overlap.
    """
    campaign = record.campaign
    if doubled := sorted({name for name in annotators if list(annotators).count(name) > 1}):
        raise EditLoopError(f"Campaign {campaign.name}: {', '.join(doubled)} would be named twice.")
    if len(annotators) < campaign.overlap:
        raise EditLoopError(
            f"Campaign {campaign.name} asks {campaign.overlap} annotators for each page, and {len(annotators)} would "
            "be left: replace somebody instead, or add somebody first."
        )


def with_people(record: CampaignRecord, joining: Sequence[str], leaving: Sequence[str]) -> list[str]:
    """Return a campaign's annotators when some have joined and some have left.

    Args:
        record: The campaign's record.
        joining: Names of those who join.
        leaving: Names of those who leave.

    Raises:
        EditLoopError: Somebody who is to leave is none of the annotators, or somebody who is to join is one already.
    """
    present, name = record.campaign.annotators, record.campaign.name
    if strange := [person for person in leaving if person not in present]:
        raise EditLoopError(f"Campaign {name}: {', '.join(strange)} is none of its annotators ({', '.join(present)}).")
    if known := [person for person in joining if person in present]:
        raise EditLoopError(f"Campaign {name}: {', '.join(known)} is one of its annotators already.")
    return [*(person for person in present if person not in leaving), *joining]


def name_people(
    settings: ServiceSettings,
    record: CampaignRecord,
    annotators: Sequence[str],
    lead: str | None,
    accounts: Mapping[str, int],
    by: str,
) -> CampaignRecord:
    """Record who annotates and leads a campaign from now on; without a change nothing is recorded.

    Args:
        settings: Address of Label Studio.
        record: The campaign's record.
        annotators: Names of all annotators.
        lead: Name of the lead; None for none.
        accounts: Label Studio's user ids of all of them.
        by: Who says so.

    Returns:
        The record as it is then.

    Raises:
        EditLoopError: A name is given twice, or there are fewer people than its overlap.
    """
    check_people(record, annotators)
    campaign, names = record.campaign, tuple(sorted(annotators))
    known = {user_id: record.accounts.get(user_id) for user_id in accounts.values()}
    if (names, lead) == (campaign.annotators, campaign.lead) and known == {
        user_id: name for name, user_id in accounts.items()
    }:
        return record
    event = PeopleChanged(
        key=campaign.key, at=now(), by=by, annotators=names, lead=lead, accounts=dict(sorted(accounts.items()))
    )
    append_event(event, campaign.name)
    return read_record(settings, campaign.key)


def record_joined(settings: ServiceSettings, record: CampaignRecord) -> CampaignRecord:
    """Record the accounts of listed people who joined Label Studio after the campaign had opened.

    Args:
        settings: Address and token of Label Studio.
        record: The campaign's record.

    Returns:
        The record with their accounts. Where no key to sign with is at hand, only this call knows them.
    """
    campaign = record.campaign
    people = {*campaign.annotators, *filter(None, [campaign.lead])}
    known = {name: user_id for user_id, name in record.accounts.items() if name in people}
    lacking = people - known.keys()
    if not lacking or record.cancelled:
        return record
    ids = member_ids(settings)
    joined = {name: user_id for name in lacking if (user_id := ids.get(spelling(name), 0))}
    joined = {name: user_id for name, user_id in joined.items() if user_id not in record.accounts}
    if not joined:
        return record
    if SigningSettings().signing_key is None:
        names = {user_id: name for name, user_id in joined.items()}
        return replace(record, accounts={**record.accounts, **names})
    return name_people(settings, record, campaign.annotators, campaign.lead, known | joined, "EditLoop")
