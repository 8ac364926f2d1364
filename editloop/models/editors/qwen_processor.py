"""Qwen's processor of text and images without its video part, which needs torchvision, and its chat template."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase, Qwen2VLProcessor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from editloop.errors import EditLoopError


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


def chat_text(
    tokenizer: PreTrainedTokenizerBase,
    content: Sequence[Mapping[str, str]] | str,
    system: str | None = None,
    *,
    answered: bool = True,
) -> str:
    """Return one user message as a text, by the tokenizer's chat template.

    Args:
        tokenizer: The tokenizer.
        content: The message: a text, or its parts as the template takes them. Pictures are numbered.
        system: The system message. None leaves it to the template.
        answered: Whether the text ends where an answer begins.

    Raises:
        EditLoopError: The tokenizer has no chat template.
    """
    if not tokenizer.chat_template:
        raise EditLoopError(
            f"{tokenizer.name_or_path}: the text encoder's tokenizer has no chat template. Put its chat_template.jinja "
            "or the published tokenizer_config.json there."
        )
    messages: list[dict[str, Any]] = [{"role": "user", "content": content}]
    if system is not None:
        messages.insert(0, {"role": "system", "content": system})
    return str(
        tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=answered, add_vision_id=True)
    )
