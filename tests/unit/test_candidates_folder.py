"""Files of JSON lines that were damaged: one line that names the file, the line, the fault and the next step."""

from pathlib import Path

import pytest

from editloop.data.candidates_folder import read_tasks
from editloop.errors import EditLoopError


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b'{"a": 1}\n', "line 1 is no EditTask (task_id: missing)"),
        (b'\n{"task_id": "x"', "line 2 is no EditTask (Invalid JSON: EOF while parsing an object"),
        (b"[1]\n", "line 1 is no EditTask (Input should be an object)"),
        (b"\xff\xfe", "cannot be read (UnicodeDecodeError)"),
        (None, "cannot be read (FileNotFoundError)"),
    ],
)
def test_damaged_tasks_are_one_line(content: bytes | None, fault: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "tasks.jsonl").write_bytes(content)
    with pytest.raises(EditLoopError) as refused:
        read_tasks(tmp_path)
    message = str(refused.value)
    assert message.startswith(f"{tmp_path / 'tasks.jsonl'}: {fault}")
    assert message.endswith("Restore it, or run the step that writes the folder again.")
    assert "\n" not in message
