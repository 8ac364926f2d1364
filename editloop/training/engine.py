"""DeepSpeed's engine around a model in training, and access to its whole trainable weights."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as distributed
from torch import Tensor, nn

from editloop.errors import EditLoopError
from editloop.models.backbones.spreading import Spread, gathered, is_spread, whole_shape
from editloop.models.backbones.weight_files import TensorOutline, read_tensors, survey_weights
from editloop.training.distributed import device
from editloop.training.memory_plan import BUCKET_ELEMENTS
from editloop.training.settings import RunSettings, TrainingSettings
from editloop.training.training_task import ParameterGroup


def uses_bf16(settings: RunSettings) -> bool:
    """Return whether the model's forward and backward passes run in bfloat16 on this machine.

    Args:
        settings: The training's settings; `auto` means bfloat16 where there is a GPU.
    """
    return settings.precision == "bf16" or (settings.precision == "auto" and torch.cuda.is_available())


def weight_type(settings: RunSettings) -> torch.dtype:
    """Return the type of the model's weights in the passes through it.

    Args:
        settings: The training's settings.
    """
    return torch.bfloat16 if uses_bf16(settings) else torch.float32


def freeze_embeddings(backbone: Any, settings: TrainingSettings) -> None:
    """Take a judge's token embeddings out of the training, in place, where the settings say so.

    Args:
        backbone: Its Hugging Face model.
        settings: The training's settings.
    """
    if settings.frozen_embeddings:
        backbone.get_input_embeddings().requires_grad_(False)


def spread_of(settings: TrainingSettings) -> Spread | None:
    """Return where the ranks keep their parts of a model's weights; None where each has all of them.

    Args:
        settings: The training's settings.
    """
    if settings.zero_stage != 3:
        return None
    return "host" if settings.offload == "parameters" else "device"


def start_engine(
    model: nn.Module,
    groups: Sequence[ParameterGroup],
    settings: RunSettings,
    *,
    passes: int | None,
    betas: tuple[float, float] = (0.9, 0.999),
    offload: Literal["none", "optimizer", "parameters"] = "none",
    bf16: bool = False,
    universal: bool = False,
) -> Any:
    """Return DeepSpeed's engine with AdamW over groups of parameters.

    The loops form batches themselves. DeepSpeed's own batch sizes only have to agree with each other.

    Args:
        model: The model. With stage 3 its weights may be spread over the ranks already.
        groups: All trainable parameters, each in one group.
        settings: The training's settings.
        passes: Backward passes that accumulate the gradient of one step; None: as many as come before each `step`.
        betas: AdamW's decays of its moving averages.
        offload: What is kept in main memory instead of the GPU's.
        bf16: Whether the model's weights are bfloat16, with fp32 masters in the engine.
        universal: Whether the engine will load a universal checkpoint.
    """
    import deepspeed

    param_groups: list[dict[str, Any]] = [
        {"params": list(group.parameters), "lr": settings.learning_rate * group.share, "share": group.share}
        for group in groups
    ]
    optimiser = torch.optim.AdamW(
        param_groups,
        lr=settings.learning_rate,
        betas=betas,
        weight_decay=settings.weight_decay,
        fused=torch.cuda.is_available(),
    )
    shapes = [whole_shape(parameter) for param_group in param_groups for parameter in param_group["params"]]
    trained = sum(math.prod(shape) for shape in shapes)
    if any(is_spread(parameter) for parameter in model.parameters()):
        # The engine takes such a model to have its types and its place already, also what was added to it.
        model.to(device())
        for parameter in model.parameters():
            if bf16 and not is_spread(parameter):
                parameter.data = parameter.data.bfloat16()
    # DeepSpeed's default bucket takes 2 GB of a GPU in any case.
    zero: dict[str, Any] = {"stage": settings.zero_stage, "reduce_bucket_size": min(BUCKET_ELEMENTS, trained)}
    if offload != "none":
        zero["offload_optimizer"] = {"device": "cpu"}
    if offload == "parameters":
        zero["offload_param"] = {"device": "cpu"}
    accumulation = {"managed_gradient_accumulation": False} if passes is None else {}
    config = {
        "train_batch_size": distributed.get_world_size() * (passes or 1),
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": passes or 1,
        **accumulation,
        "gradient_clipping": settings.gradient_clip,
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": bf16},
        "checkpoint": {"load_universal": universal},
        "steps_per_print": 2**31,
    }
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimiser, config=config)
    return engine


def enable_gradient_checkpointing(model: nn.Module) -> None:
    """Make the model of transformers or diffusers inside `model` keep only its blocks' inputs and recompute the rest.

    Args:
        model: A module that is or contains such a model.

    Raises:
        EditLoopError: `model` contains none that can.
    """
    for module in model.modules():
        if getattr(module, "supports_gradient_checkpointing", False):  # of transformers
            module.gradient_checkpointing_enable({"use_reentrant": False})  # type: ignore[operator]
            return
        if getattr(module, "_supports_gradient_checkpointing", False):  # of diffusers
            module.enable_gradient_checkpointing()  # type: ignore[operator]
            return
    raise EditLoopError(
        f"gradient_checkpointing: {type(model).__name__} has no model of transformers or diffusers inside that "
        "supports it. Set it to false and take a smaller micro_batch."
    )


def set_learning_rate(engine: Any, rate: float) -> None:
    """Set the learning rate of each parameter group to its share of `rate`.

    Args:
        engine: DeepSpeed's engine.
        rate: Learning rate of this step, before the groups' shares.
    """
    for group in engine.optimizer.param_groups:
        group["lr"] = rate * group["share"]


def trainable_outline(model: nn.Module) -> dict[str, TensorOutline]:
    """Return the shapes of a model's trainable parameters by name, as tensors of fp32.

    Args:
        model: The model. Its parameters may be spread over the ranks.
    """
    return {
        name: TensorOutline(whole_shape(parameter), torch.float32)
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


def trainable_tensors(engine: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield the trainable parameters by name, whole, in fp32, one after the other. Every rank takes all of them.

    Where the engine keeps fp32 masters, these are returned: with bf16 they hold digits that the model's own weights
    have lost.

    Args:
        engine: DeepSpeed's engine.
    """
    from deepspeed.utils import safe_get_full_fp32_param

    for name, parameter in engine.module.named_parameters():
        if not parameter.requires_grad:
            continue
        is_full_fp32 = parameter.dtype == torch.float32 and not is_spread(parameter)
        value = parameter.detach() if is_full_fp32 else safe_get_full_fp32_param(parameter)
        yield name, parameter.detach() if value is None else value


@torch.no_grad()
def restore_state(model: nn.Module, state: Path) -> None:
    """Give a model's trainable parameters the values of a file. Every rank calls it; rank 0 reads.

    Args:
        model: The model that was trained. Its parameters may be spread over the ranks.
        state: safetensors file with a tensor for each trainable parameter, by its name.

    Raises:
        EditLoopError: A value of the file is not finite.
    """
    first = distributed.get_rank() == 0
    tensors = survey_weights(state) if first else {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        with gathered(parameter, changed=True):
            if first:
                _, value = next(read_tensors({name: tensors[name]}))
                parameter.copy_(value)
        if not is_spread(parameter):
            distributed.broadcast(parameter.data, src=0)


def put_state(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Copy values into a model's parameters by name.

    Args:
        model: The model to change.
        state: Values by parameter name, of the parameters' shapes.

    Raises:
        EditLoopError: The model has no parameter of that name and shape.
    """
    parameters = dict(model.named_parameters())
    for name, value in state.items():
        if name not in parameters or parameters[name].shape != value.shape:
            model_shape = tuple(parameters[name].shape) if name in parameters else "no such parameter"
            raise EditLoopError(
                f"trained state: {name} {tuple(value.shape)} does not fit the model ({model_shape}). "
                "Save with the base and adapter that were trained."
            )
        with torch.no_grad():
            parameters[name].copy_(value)
