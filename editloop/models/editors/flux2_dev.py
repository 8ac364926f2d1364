"""FLUX.2 [dev] as an `Editor`. A test checks that it samples exactly as `diffusers.Flux2Pipeline` does."""

import json
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerBase, ProcessorMixin

from editloop.errors import EditLoopError
from editloop.models.editors.flux2 import Flux2Editor
from editloop.models.editors.protocol import Conditioning

PROCESSOR = "tokenizer"
"""The pipeline's name for its text encoder's processor."""
PICTURE_FILES = ("preprocessor_config.json", "processor_config.json")
"""Files of a processor's folder that are about pictures."""
FORMER_TEMPLATE = "chat_template.json"
"""Where a processor of transformers 4 may have its chat template, which a tokenizer does not read."""


class TextProcessor(ProcessorMixin):
    """The part of `PixtralProcessor` that is for text. The rest needs torchvision, and editing shows it no pictures."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, chat_template: str | None = None):
        """Wrap a tokenizer.

        Args:
            tokenizer: The tokenizer.
            chat_template: None takes the tokenizer's.
        """
        super().__init__(tokenizer, chat_template=chat_template or tokenizer.chat_template)  # type: ignore[no-untyped-call]  # its own
        self.picture_files: dict[str, bytes] = {}
        """Content of the files about pictures of the folder it was read from, which are written as they were."""

    @classmethod
    def from_folder(cls, folder: Path) -> Self:
        """Read a processor from a pipeline's `tokenizer` folder.

        Args:
            folder: The folder.

        Raises:
            EditLoopError: It has no chat template.
        """
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        if not tokenizer.chat_template and (folder / FORMER_TEMPLATE).is_file():
            try:
                tokenizer.chat_template = json.loads((folder / FORMER_TEMPLATE).read_bytes())["chat_template"]
            except (ValueError, KeyError, TypeError):
                pass  # the same as none
        if not tokenizer.chat_template:
            raise EditLoopError(
                f"{folder}: the text encoder's processor has no chat template. Put its chat_template.jinja there, as "
                "it was published."
            )
        processor = cls(tokenizer)
        processor.picture_files = {
            name: (folder / name).read_bytes() for name in PICTURE_FILES if (folder / name).is_file()
        }
        return processor

    def apply_chat_template(  # type: ignore[override]  # the arguments that diffusers gives
        self, conversation: Any, *, tokenize: bool = False, **options: Any
    ) -> Any:
        """Return conversations as texts, or as tokens, by the chat template.

        Args:
            conversation: As transformers' own.
            tokenize: Whether tokens are returned.
            **options: `add_generation_prompt` and `return_dict`; the others are the tokenizer's. diffusers gives all of
                them together, of which transformers warns at each call.
        """
        own = {name: options.pop(name) for name in ("add_generation_prompt", "return_dict") if name in options}
        return super().apply_chat_template(conversation, tokenize=tokenize, processor_kwargs=options, **own)

    def save_pretrained(self, folder: str | Path, **kwargs: Any) -> None:  # type: ignore[override]  # by position
        """Write the tokenizer, its chat template, and the files about pictures that were read.

        Args:
            folder: The folder to write.
            **kwargs: Ignored.
        """
        self.tokenizer.save_pretrained(folder)
        for name, content in self.picture_files.items():
            (Path(folder) / name).write_bytes(content)


class Flux2DevEditor(Flux2Editor):
    """Editor over `Flux2Pipeline`, whose text encoder is Mistral Small. Guidance is embedded: one pass at any scale."""

    @staticmethod
    def preset(index: dict[str, Any]) -> str:
        return "flux2-dev"

    @classmethod
    def parts(cls, folder: Path) -> dict[str, Any]:
        return {PROCESSOR: TextProcessor.from_folder(folder / PROCESSOR)}

    @property
    def text_tokenizer(self) -> PreTrainedTokenizerBase:
        tokenizer: PreTrainedTokenizerBase = self.pipeline.tokenizer.tokenizer
        return tokenizer

    def velocity(self, x: Tensor, sigma: Tensor, condition: Conditioning, guidance: float | None = None) -> Tensor:
        scales = torch.full_like(sigma, self.guidance_or_default(guidance))
        return self.one_pass(x, sigma, condition, condition.parts["prompt"], scales)

    def save(self, folder: Path) -> None:
        super().save(folder)
        index = json.loads((folder / "model_index.json").read_text())
        index[PROCESSOR] = ["transformers", "PixtralProcessor"]
        (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
