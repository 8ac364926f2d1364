"""Qwen's processor of text and images without its video part, which needs torchvision."""

from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase, Qwen2VLProcessor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil


class PictureProcessor(Qwen2VLProcessor):
    """`Qwen2VLProcessor` for text and images only."""

    def __init__(self, image_processor: Qwen2VLImageProcessorPil, tokenizer: PreTrainedTokenizerBase):
        """Join an image processor and a tokenizer.

        Args:
            image_processor: Image processor that needs no torchvision.
            tokenizer: The tokenizer.
        """
        super().__init__(image_processor, tokenizer)

    @classmethod
    def from_folder(cls, folder: Path) -> "PictureProcessor":
        """Read a processor from a pipeline's `processor` folder.

        Args:
            folder: The folder.
        """
        return cls(
            Qwen2VLImageProcessorPil.from_pretrained(folder, local_files_only=True),
            AutoTokenizer.from_pretrained(folder, local_files_only=True),
        )

    def save_pretrained(self, folder: str | Path, **kwargs: Any) -> None:  # type: ignore[override]  # by position
        """Write the image processor and the tokenizer, laid out as `Qwen2VLProcessor` does.

        Args:
            folder: The folder to write.
            **kwargs: Ignored.
        """
        self.image_processor.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> Any:
        if argument_name == "video_processor":
            return type(None)
        return super().check_argument_for_proper_class(argument_name, argument)
