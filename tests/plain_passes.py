"""The plain way that EditReward's reference code goes: one full pass of the Hugging Face model a candidate and axis.

Written on its own, from strings, the Hugging Face image processor and the backbone's own positions, so that it can
judge the shared way.
"""

import copy
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import Qwen2VLImageProcessorPil

from editloop.models.edit_reward.model import RewardModel

IMAGE = "<|vision_start|>{pads}<|vision_end|>"


class PlainPasses(torch.nn.Module):
    """The same weights (shared, not copied, with `share`) behind transformers' own attention."""

    def __init__(self, model: RewardModel, share: bool = False):
        super().__init__()
        self.settings, self.tokenizer, self.rm_heads = model.settings, model.tokenizer, model.rm_heads
        shared = {id(parameter): parameter for parameter in model.backbone.parameters()} if share else {}
        self.backbone = copy.deepcopy(model.backbone, shared)
        self.backbone.language_model.set_attn_implementation("sdpa")
        self.backbone.visual.set_attn_implementation("sdpa")
        vision = self.backbone.config.vision_config
        self.merge = vision.spatial_merge_size
        self.processor = Qwen2VLImageProcessorPil(
            patch_size=vision.patch_size,
            merge_size=self.merge,
            temporal_patch_size=vision.temporal_patch_size,
            size={"shortest_edge": self.settings.min_pixels, "longest_edge": self.settings.max_pixels},
            image_mean=list(self.settings.image_mean),
            image_std=list(self.settings.image_std),
        )

    def inputs(self, instruction: str, source: Any, edit: Any, references: Any = ()) -> list[dict[str, Tensor]]:
        """What each of the passes over one candidate takes; of `rubric-first` there is one that reads all axes."""
        pictures = [Image.fromarray(picture) for picture in (source, *references, edit)]
        seen = self.processor(pictures, return_tensors="pt")
        pads = [int(grid.prod()) // self.merge**2 for grid in seen.image_grid_thw]
        *sources, second = (IMAGE.format(pads="<|image_pad|>" * count) for count in pads)
        first = "".join(sources)
        note = self.settings.reference_note.replace("{references}", str(len(references))) if references else ""
        told = [rubric.replace("{instruction}", instruction) for rubric in self.settings.rubrics]
        rewards = "<|Reward|>" * len(self.settings.axes)
        if self.settings.order == "official":
            texts = [f"{self.settings.opening}{first}{second}{note}{rubric}<|Reward|>" for rubric in told]
        else:
            rubrics = "\n\n".join(told)
            texts = [f"{self.settings.opening}{rubrics}{note}{first}{second}{rewards}"]
        found = []
        for text in texts:
            ids = torch.tensor([self.tokenizer(text, add_special_tokens=False).input_ids])
            found.append(
                {
                    "input_ids": ids,
                    "attention_mask": torch.ones_like(ids),
                    "mm_token_type_ids": (ids == self.backbone.config.image_token_id).int(),
                    "pixel_values": seen.pixel_values,
                    "image_grid_thw": seen.image_grid_thw,
                }
            )
            if self.settings.positions == "flat":
                found[-1]["position_ids"] = torch.arange(ids.shape[1]).expand(3, 1, -1)
        return found

    def hidden(self, group: Any) -> Tensor:
        """(K, axes, width), a pass at a time."""
        return torch.stack(
            [
                self.read_one(self.inputs(group.instruction, group.source, edit, group.references))
                for edit in group.edits
            ]
        )

    def read_one(self, passes: list[dict[str, Tensor]]) -> Tensor:
        """(axes, width) of one candidate."""
        last = [self.backbone(**one, use_cache=False).last_hidden_state[0] for one in passes]
        if self.settings.order == "official":
            return torch.stack([one[-1] for one in last])
        return last[0][-len(self.settings.axes) :]
