"""The checks of services, against real ones: which answer, which refuse, which are away."""

from pathlib import Path

from infra.doctor import Check
from infra.services import Services
from pipelines.service_checks import check_services


def by_name(checks: list[Check]) -> dict[str, Check]:
    return {check.name: check for check in checks}


def test_services_that_answer_pass_and_a_wrong_log_in_is_told(services: Services) -> None:
    variables = dict(services.environment)
    found = by_name(check_services(variables))
    assert found.keys() == {"MLflow", "reward champion", "Label Studio"}
    assert all(check.ok for check in found.values()), found
    assert (found["MLflow"].state[:2], found["Label Studio"].state[:3]) == ("3.", "1.2")
    wrong = {"MLFLOW_TRACKING_PASSWORD": "wrong", "EDITLOOP_LABEL_STUDIO_TOKEN": "0" * 40}
    refused = by_name(check_services(variables | wrong))
    assert "refuses the log-in of" in refused["MLflow"].state
    assert "refuses the token" in refused["Label Studio"].state
    swapped = {
        "MLFLOW_TRACKING_URI": variables["EDITLOOP_LABEL_STUDIO_URL"],
        "EDITLOOP_LABEL_STUDIO_URL": variables["MLFLOW_TRACKING_URI"],
    }
    assert not any(check.ok for check in check_services(variables | swapped))
    away = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9", "EDITLOOP_LABEL_STUDIO_URL": "http://127.0.0.1:9"}
    for check in check_services(variables | away):
        assert "does not answer (ConnectError)" in check.state


def test_storage_is_written_and_read_and_a_repository_is_reached(
    s3_environment: dict[str, str], tmp_path: Path
) -> None:
    variables = s3_environment | {"EDITLOOP_PICTURES": "s3://editloop/pictures", "EDITLOOP_CHECKPOINTS": str(tmp_path)}
    for check in check_services(variables, "s3://editloop/pipelines"):
        assert (check.ok, check.state) == (True, "written and read")
    (refused, _) = check_services(variables | {"AWS_SECRET_ACCESS_KEY": "wrong"}, "s3://editloop/pipelines")
    assert (refused.name, refused.ok) == ("storage s3://editloop/pipelines", False)
    assert "\n" not in refused.state
    (gone,) = check_services({"EDITLOOP_DATASET_REPO": f"file://{tmp_path}/none"})
    assert (gone.name, gone.ok) == ("dataset repository", False)
