"""How annotators join: by invitation, with accounts of their own, and nothing secret left in a log."""

import re
import secrets

import requests

from annotation.campaigns.accounts import ensure_annotators, read_accounts
from annotation.campaigns.campaign import connect
from annotation.campaigns.campaign_settings import CampaignSettings
from annotation.campaigns.invitations import invitations
from annotation.campaigns.locating import locate_campaign
from annotation.campaigns.opening import open_campaign
from annotation.campaigns.people import record_joined
from annotation.campaigns.record import read_record
from infra.settings import service_settings


def sign_up(url, invitation, email=None):
    """Status of an attempt to join by the invitation."""
    page, session = f"{url}/user/signup/?token={invitation}", requests.Session()
    token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', session.get(page, timeout=60).text).group(1)
    form = {
        "csrfmiddlewaretoken": token,
        "email": email or f"x{secrets.token_hex(4)}@team.example",
        "password": "a Quiet-Otter 41",
    }
    return session.post(page, data=form, headers={"Referer": page}, timeout=60, allow_redirects=False).status_code


def test_an_account_is_a_person_s_own_and_no_log_opens_a_door(service_environment):
    settings = service_settings()
    client = connect(settings)
    names = [f"joining-{secrets.token_hex(3)}" for _ in range(2)]
    ids = ensure_annotators(client, names, settings)
    assert ensure_annotators(client, names, settings) == ids
    accounts = read_accounts(settings)
    assert len({accounts[name].password for name in names}) == 2
    for name in names:
        me = requests.get(
            f"{settings.label_studio_url}/api/current-user/whoami",
            headers={"Authorization": f"Token {accounts[name].token}"},
            timeout=60,
        )
        assert me.json()["id"] == ids[name]
    log = service_environment.label_studio.log.read_text()
    assert not [name for name in names if accounts[name].password in log or accounts[name].token in log]
    assert settings.require("label_studio_token") not in log
    logged = set(re.findall(r"/user/signup/\?(?:next=/&)?token=(\w+)", log))
    assert logged, "an invitation's address is logged by Label Studio"
    assert {sign_up(settings.label_studio_url, invitation) for invitation in logged} == {403}
    assert sign_up(settings.label_studio_url, client.organizations.invites.get_invite_link().token) == 302


def test_who_has_not_joined_is_invited_and_known_once_they_have(service_environment, make_candidates, tmp_path):
    """Without an accounts file, as where people choose their passwords; their answers count from then on."""
    settings = service_settings().model_copy(update={"annotators_file": None})
    client, name = connect(settings), f"later-{secrets.token_hex(3)}@team.example"
    assert ensure_annotators(client, [name], settings) == {}
    asked = CampaignSettings(name=f"joined {name}", annotators=(name,), overlap=1)
    campaign = open_campaign(client, settings, make_candidates(1, candidates=2), asked, tmp_path)
    (person,) = invitations(settings, campaign).people
    assert record_joined(settings, read_record(settings, campaign.key)).accounts == {}
    token = re.search(r"token=(\w+)", person.address).group(1)
    assert sign_up(settings.label_studio_url, token, name.upper()) == 302
    joined = locate_campaign(settings, campaign.key).record
    assert list(joined.accounts.values()) == [name]
    assert read_record(settings, campaign.key).accounts == joined.accounts, "it is in the record"
    (person,) = invitations(settings, campaign).people
    assert person.task == f"log in as {name}, with your own password"
