"""Qwen's processor of text and pictures without its video half, which needs torchvision."""

from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase, Qwen2VLProcessor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil


class PictureProcessor(Qwen2VLProcessor):
    """`Qwen2VLProcessor` for texts with pictures."""

    def __init__(self, image_processor: Qwen2VLImageProcessorPil, tokenizer: PreTrainedTokenizerBase):
        super().__init__(image_processor, tokenizer)

    @classmethod
    def from_folder(cls, folder: Path) -> "PictureProcessor":
        """The processor in a pipeline's `processor` folder."""
        return cls(
            Qwen2VLImageProcessorPil.from_pretrained(folder, local_files_only=True),
            AutoTokenizer.from_pretrained(folder, local_files_only=True),
        )

    def save_pretrained(self, folder: str | Path, **kwargs: Any) -> None:
        """Both halves, as the whole processor lays them out."""
        self.image_processor.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> Any:
        if argument_name == "video_processor":
            return type(None)
        return super().check_argument_for_proper_class(argument_name, argument)
