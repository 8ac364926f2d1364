"""Choice of the RL algorithm that a training's settings name."""

from typing import assert_never

from editloop.models.editors.protocol import Editor
from editloop.training.editor_rl.algorithm import RlAlgorithm
from editloop.training.editor_rl.algorithm_settings import FlowGrpoSettings, NftSettings
from editloop.training.editor_rl.flow_grpo_algorithm import FlowGrpoAlgorithm
from editloop.training.editor_rl.nft_algorithm import NftAlgorithm
from editloop.training.editor_rl.settings import RlSettings
from editloop.training.editor_rl.trained_weights import TrainedWeights


def build_algorithm(settings: RlSettings, editor: Editor, weights: TrainedWeights) -> RlAlgorithm:
    """Return the algorithm of a training.

    Args:
        settings: The training's settings; the class of `settings.algorithm` chooses.
        editor: The editor to train.
        weights: Its trained parameters.
    """
    match settings.algorithm:
        case NftSettings() as nft:
            return NftAlgorithm(settings, nft, editor, weights)
        case FlowGrpoSettings() as grpo:
            return FlowGrpoAlgorithm(settings, grpo, editor)
        case unknown:
            assert_never(unknown)
