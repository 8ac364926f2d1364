"""DeepSpeed's engine around a model in training, and access to its whole trainable weights."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.distributed as distributed
from torch import Tensor, nn

from editloop.errors import EditLoopError
from editloop.training.memory_plan import BUCKET_ELEMENTS
from editloop.training.settings import RunSettings
from editloop.training.training_task import ParameterGroup


def uses_bf16(settings: RunSettings) -> bool:
    """Return whether the model's forward and backward passes run in bfloat16 on this machine.

    Args:
        settings: The training's settings; `auto` means bfloat16 where there is a GPU.
    """
    return settings.precision == "bf16" or (settings.precision == "auto" and torch.cuda.is_available())


def start_engine(
    model: nn.Module,
    groups: Sequence[ParameterGroup],
    settings: RunSettings,
    *,
    passes: int | None,
    offload: Literal["none", "optimizer", "parameters"] = "none",
    bf16: bool = False,
    universal: bool = False,
) -> Any:
    """Return DeepSpeed's engine with AdamW over groups of parameters.

    The loops form batches themselves. DeepSpeed's own batch sizes only have to agree with each other.

    Args:
        model: The model.
        groups: All trainable parameters, each in one group.
        settings: The training's settings.
        passes: Backward passes that accumulate the gradient of one step; None: as many as come before each `step`.
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
        param_groups, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=torch.cuda.is_available()
    )
    trained = sum(parameter.numel() for param_group in param_groups for parameter in param_group["params"])
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


def trainable_state(engine: Any) -> dict[str, Tensor]:
    """Return the trainable parameters by name, whole, in fp32, on the CPU. Every rank calls it.

    Where the engine keeps fp32 masters, these are returned: with bf16 they hold digits that the model's own weights
    have lost.

    Args:
        engine: DeepSpeed's engine.

    Returns:
        The parameters on rank 0; an empty dictionary on other ranks.
    """
    from deepspeed.utils import safe_get_full_fp32_param

    state = {}
    for name, parameter in engine.module.named_parameters():
        if not parameter.requires_grad:
            continue
        is_full_fp32 = parameter.dtype == torch.float32 and not hasattr(parameter, "ds_id")
        value = parameter.detach() if is_full_fp32 else safe_get_full_fp32_param(parameter)
        if distributed.get_rank() == 0:
            state[name] = (parameter.detach() if value is None else value).to("cpu", torch.float32, copy=True)
    return state


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
