"""Loss of learning from pairs: Diffusion-DPO (arXiv 2311.12908) with the velocity's error for the noise's. Pure, fp32.

The errors of a pair are those of `flow_matching_loss`: means over a picture's latents, at one noise level and with one
noise for both pictures.
"""

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid


def implicit_margin(
    preferred: Float[Tensor, " B"],
    preferred_base: Float[Tensor, " B"],
    rejected: Float[Tensor, " B"],
    rejected_base: Float[Tensor, " B"],
    beta: float,
) -> Float[Tensor, " B"]:
    """Return the difference of the implicit rewards of a pair's edits: -beta/2 [(w - w_base) - (l - l_base)].

    It is 0 where the editor is the base, and positive where the editor has moved towards the preferred edit more than
    towards the rejected one.

    Args:
        preferred: Errors w of the editor's velocities at the preferred edits.
        preferred_base: Those of the frozen base.
        rejected: Errors l of the editor's velocities at the rejected edits.
        rejected_base: Those of the frozen base.
        beta: Strength of the tie to the base, above 0: the larger, the smaller the change that satisfies a pair.
    """
    return -0.5 * beta * ((preferred - preferred_base) - (rejected - rejected_base))


def dpo_loss(margin: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
    """Return -log sigmoid(margin), the loss of each pair; log 2 where the editor is the base.

    Args:
        margin: Margins of `implicit_margin`.
    """
    return -logsigmoid(margin)


def ordered_share(margin: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
    """Return 1 for each pair that the editor orders as the experts do, 0 for the opposite, and a half for neither.

    Its mean is the implicit accuracy.

    Args:
        margin: Margins of `implicit_margin`.
    """
    return 0.5 * (1 + margin.sign())
