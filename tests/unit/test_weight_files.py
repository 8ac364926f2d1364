"""Files of weights written a tensor at a time, as the library reads them."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from editloop.errors import EditLoopError
from editloop.models.backbones.weight_files import (
    TensorFileWriter,
    TensorOutline,
    read_tensors,
    survey_weights,
    write_weights,
)

TENSORS = {
    "matrix": torch.arange(15.0).reshape(3, 5).bfloat16(),
    "scalar": torch.tensor(3.0),
    "half": torch.arange(7.0).half(),
    "empty": torch.zeros(0, 4),
    "double": torch.arange(2.0, dtype=torch.float64),
}
OUTLINE = {name: TensorOutline(tuple(tensor.shape), tensor.dtype) for name, tensor in TENSORS.items()}


@pytest.mark.parametrize("shard_bytes", [20, 10**6], ids=["a file for each", "one file"])
def test_what_is_written_in_any_order_is_read(tmp_path: Path, shard_bytes: int) -> None:
    write_weights(tmp_path, OUTLINE, reversed(TENSORS.items()), shard_bytes)
    assert (len(list(tmp_path.glob("*.safetensors"))) > 1) == (shard_bytes == 20)
    read = dict(read_tensors(survey_weights(tmp_path)))
    assert read.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name], tensor)
    with safe_open(next(tmp_path.glob("*.safetensors")), "pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_a_tensor_that_was_forgotten_is_an_error(tmp_path: Path) -> None:
    writer = TensorFileWriter(tmp_path / "file", OUTLINE)
    for name in TENSORS.keys() - {"half"}:
        writer.write(name, TENSORS[name])
    with pytest.raises(AssertionError, match="half"):
        writer.__exit__(None, None, None)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_not_finite_is_refused(tmp_path: Path, value: float, dtype: torch.dtype) -> None:
    tensor = torch.tensor([1.0, value, 2.0], dtype=dtype)
    write_weights(tmp_path, {"a": TensorOutline((3,), dtype)}, [("a", tensor)])
    with pytest.raises(EditLoopError, match="a has NaN or infinite values"):
        list(read_tensors(survey_weights(tmp_path)))
