"""FLUX.2 Klein as an `Editor`. A test checks that it samples exactly as `diffusers.Flux2KleinPipeline` does."""

from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoTokenizer

from editloop.models.editors.flux2 import Flux2Editor
from editloop.models.editors.protocol import Conditioning


class Flux2KleinEditor(Flux2Editor):
    """Editor over `Flux2KleinPipeline`, whose text encoder is Qwen3.

    Guidance compares with the negative instruction (empty by default). A distilled network takes no guidance.
    """

    @staticmethod
    def preset(index: dict[str, Any]) -> str:
        return "flux2-klein" if index.get("is_distilled") else "flux2-klein-base"

    @classmethod
    def parts(cls, folder: Path) -> dict[str, Any]:
        return {"tokenizer": AutoTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)}

    def velocity(self, x: Tensor, sigma: Tensor, condition: Conditioning, guidance: float | None = None) -> Tensor:
        guidance_scale = self.guidance_or_default(guidance)
        velocity = self.one_pass(x, sigma, condition, condition.parts["prompt"])
        if guidance_scale <= 1 or self.pipeline.config.is_distilled:
            return velocity
        against = self.one_pass(x, sigma, condition, self.negative.expand(len(x), -1, -1))
        return against + guidance_scale * (velocity - against)

    @cached_property
    def negative(self) -> Tensor:
        """The encoded negative instruction, (1, L, text width * layers)."""
        with torch.no_grad():
            return self.encoded_text([self.settings.negative])
