"""Label Studio with the settings that `editloop up` gives it, when many people answer at once."""

import os
import subprocess
from pathlib import Path

from infra.service_programs import LABEL_STUDIO_OFFLINE, LABEL_STUDIO_PAGE, label_studio_command
from infra.settings import LocalServiceSettings

WRITERS = """
import threading
from django.core.servers.basehttp import ThreadedWSGIServer
from django.db import connection, transaction

with connection.cursor() as cursor:
    cursor.execute("PRAGMA journal_mode=wal")
    cursor.execute("CREATE TABLE answers (who TEXT)")
has_read = threading.Event()

def write():
    has_read.wait()
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO answers VALUES ('other')")
    connection.close()

other = threading.Thread(target=write)
other.start()
with transaction.atomic(), connection.cursor() as cursor:
    cursor.execute("SELECT count(*) FROM answers")
    has_read.set()
    other.join(1)
    cursor.execute("INSERT INTO answers VALUES ('first')")
other.join()
with connection.cursor() as cursor:
    cursor.execute("SELECT who FROM answers")
    print([who for who, in cursor.fetchall()], ThreadedWSGIServer.request_queue_size)
"""


def test_who_writes_waits_for_others_and_so_does_who_connects(tmp_path: Path) -> None:
    program = label_studio_command(LocalServiceSettings()).resolve()
    (server,) = program.parent.parent.glob("lib/python3*/site-packages/label_studio")
    path = f"{server}{os.pathsep}{LABEL_STUDIO_PAGE['PYTHONPATH']}"
    variables = {**LABEL_STUDIO_OFFLINE, **LABEL_STUDIO_PAGE, "PYTHONPATH": path}
    done = subprocess.run(
        [program.parent / "python", "-c", WRITERS],
        env=os.environ | variables | {"LABEL_STUDIO_BASE_DATA_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "['first', 'other'] 1024"
