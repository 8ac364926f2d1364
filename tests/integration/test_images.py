"""The container images: built as the Dockerfiles say, on a Debian of the archive's own, and run without a network."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from PIL import Image

TOP = Path(__file__).parents[2]
ARCHIVE = "http://deb.debian.org/debian"
BASE = "localhost/editloop-test-debian:12"
RUN = ("--isolation", "chroot", "--volume", "/etc/ssl/certs:/etc/ssl/certs:ro")
"""buildah's options for a machine that is itself a container."""


def obstacle() -> str:
    """Why no image can be built here; empty where one can."""
    if os.geteuid() != 0:
        return "only root builds images without further set-up"
    if missing := [program for program in ("buildah", "debootstrap", "unshare") if shutil.which(program) is None]:
        return f"{', '.join(missing)} not installed"
    try:
        httpx.head(f"{ARCHIVE}/dists/bookworm/Release", timeout=10, follow_redirects=True).raise_for_status()
    except httpx.HTTPError as error:
        return f"{ARCHIVE} does not answer: {error}"
    return ""


pytestmark = pytest.mark.extended("builds two images of gigabytes, up to half an hour")


def buildah(*arguments: str, without_network: bool = False) -> str:
    command = [*(("unshare", "--net") if without_network else ()), "buildah", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=TOP)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def base() -> str:
    """A small Debian 12, kept for the next time."""
    if reason := obstacle():
        pytest.skip(f"no image can be built here: {reason}")
    if not buildah("images", "--quiet", "--filter", f"reference={BASE}"):
        container = buildah("from", "scratch").strip()
        root = buildah("mount", container).strip()
        command = ["debootstrap", "--variant=minbase", "--include=ca-certificates", "bookworm", root, ARCHIVE]
        subprocess.run(command, check=True)
        buildah("umount", container)
        buildah("commit", "--rm", container, BASE)
    return BASE


def build(base: str, dockerfile: str, **arguments: str) -> str:
    """Build an image with this machine's own settings of pip, and return its name."""
    name = f"localhost/editloop-test-{dockerfile.lower().replace('.', '-')}"
    options = [*RUN, "--network", "host", "--layers", "--file", dockerfile, "--tag", name]
    wheels = os.environ.get("PIP_FIND_LINKS", "")
    if Path(wheels).is_dir():
        options += ["--volume", f"{wheels}:{wheels}:ro", "--env", f"PIP_FIND_LINKS={wheels}"]
    if Path("/etc/pip.conf").is_file():
        options += ["--volume", "/etc/pip.conf:/etc/pip.conf:ro"]
    for key, value in {"BASE": base, **arguments}.items():
        options += ["--build-arg", f"{key}={value}"]
    buildah("build", *options, ".")
    return name


@pytest.fixture
def container(request: pytest.FixtureRequest, base: str) -> Iterator[str]:
    """A container of the image that the test names with its build arguments."""
    dockerfile, arguments = request.param
    name = buildah("from", build(base, dockerfile, **arguments)).strip()
    yield name
    buildah("rm", name)


def run(container: str, *command: str) -> str:
    """Run a command in a container as its user, without a network."""
    return buildah("run", "--isolation", "chroot", container, "--", *command, without_network=True)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    "container",
    [("Dockerfile", {"ACCELERATOR": "cpu", "TORCH_INDEX": "https://pypi.org/simple", "COMMIT": "1234567"})],
    indirect=True,
)
def test_a_step_runs_in_the_image(container: str, tmp_path: Path) -> None:
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    (tmp_path / "edits.jsonl").write_text('{"id": "a", "source": "a.png", "instruction": "make it red"}\n')
    buildah("copy", "--quiet", "--chown", "1000", container, str(tmp_path), "/tmp/edits")
    stage = "editloop stage candidates --edits /tmp/edits --output /tmp/candidates --per-task 2 --steps 1"
    run(container, "sh", "-c", f"MLFLOW_TRACKING_URI=sqlite:////tmp/runs.db {stage}")
    facts = run(container, "sh", "-c", "ls /tmp/candidates/images | wc -l; echo $EDITLOOP_GIT_COMMIT; id -u").split()
    assert facts == ["3", "1234567", "1000"]
    run(container, "sh", "-c", "! command -v gcc g++ cc make && pg_dump --version && python -c 'import psycopg, boto3'")


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("container", [("Dockerfile.label-studio", {})], indirect=True)
def test_label_studio_starts_in_its_image(container: str) -> None:
    sqlite = "export DJANGO_DB=sqlite LABEL_STUDIO_BASE_DATA_DIR=/tmp/label-studio"
    run(container, "sh", "-c", f"{sqlite}; django-admin migrate --no-color && gunicorn --check-config core.wsgi")
    assert run(container, "id", "-u").strip() == "1000"
    run(container, "sh", "-c", "! command -v gcc g++ cc make && python -c 'import psycopg'")
