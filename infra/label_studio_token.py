"""The API token of the local Label Studio's account, which people can reset on its Account & Settings page."""

import re

import httpx

from editloop.certificates import shared_certificates
from infra.service_programs import Service

LOG_IN_SECONDS = 30


def renewed_token(service: Service) -> str | None:
    """Return the token that a Label Studio takes, where it refuses the one that is kept.

    It is read in a session that logs in with the account's password, as a person does.

    Args:
        service: A Label Studio of this machine.

    Returns:
        The token; None where the kept one is not refused, where nothing answers, or where the password was changed too.
    """
    try:
        with httpx.Client(
            base_url=service.url, follow_redirects=True, timeout=LOG_IN_SECONDS, verify=shared_certificates()
        ) as session:
            kept = {"Authorization": f"Token {service.secret}"}
            if session.get("/api/current-user/whoami", headers=kept).status_code != 401:
                return None
            form = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', session.get("/user/login/").text)
            if not form:
                return None
            fields = {"csrfmiddlewaretoken": form.group(1), "email": service.user, "password": service.password}
            session.post("/user/login/", data=fields, headers={"Referer": f"{service.url}/user/login/"})
            reply = session.get("/api/current-user/token")
            return str(reply.json()["token"]) if reply.status_code == 200 else None
    except httpx.HTTPError:
        return None
