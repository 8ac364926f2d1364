"""The settings of one turn of the loop. `params.yaml` holds the same defaults for `dvc repro`; a test compares them."""

from pydantic import BaseModel, ConfigDict, Field


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Scenes(Part):
    """How many drawn scenes a demo without an input file works on."""

    train: int = Field(300, ge=1)
    """Tasks that experts judge."""
    stand_ins: int = Field(2, ge=1)
    """Edits of simulated third-party editors beside the editor's own, in each task that experts judge."""
    prompts: int = Field(400, ge=1)
    """Tasks that the editor practises on."""
    heldout: int = Field(2000, ge=1)
    """Tasks that base and tuned editor are compared on; 600 and more give an interval worth reading."""


class Candidates(Part):
    editor: str = "tiny-editor"
    """Who makes the edits: a diffusers folder, a shipped name, or models:/editor@champion."""
    per_task: int = Field(4, ge=1)
    """Edits a task; they are compared with each other, so pairs grow with the square."""
    steps: int = Field(8, ge=1)
    """Denoising steps of an edit."""


class Annotate(Part):
    annotators: tuple[str, ...] = ("ada", "bo", "chi", "dia")
    """Account names of the experts."""
    overlap: int = Field(2, ge=1)
    """How many of them judge each task; agreement needs two or more."""
    lead: str = ""
    """Account name of who decides tasks in conflict; empty: nobody does."""
    candidates_per_task: int = Field(0, ge=0)
    """Candidates on a page, 2 to 7; 0 shows all."""
    gold_share: float = Field(0.0, ge=0, le=0.5)
    """Pages with a known answer for each task, made where tasks have a target."""
    repeat_share: float = Field(0.0, ge=0, le=0.5)
    """Pages asked a second time for each task, in another order."""
    guidelines: str = ""
    """What annotators read first, Markdown; empty for the usual guidelines."""
    alpha_if: float = Field(0.0, ge=-1, le=1)
    """Lowest agreement on instruction following at which a campaign closes by itself; 0 for no gate."""
    alpha_vq: float = Field(0.0, ge=-1, le=1)
    """The same for visual quality."""


class Reward(Part):
    preset: str = "editreward-tiny"
    """Model and training: a name (`editloop plan` lists them), or the path of a YAML file."""
    base: str = ""
    """Model to start from, a folder or a shipped name; empty for the preset's."""
    epochs: int = Field(0, ge=0)
    """Passes over the training pairs; 0 for the preset's. What is best on the validation pairs is kept."""
    learning_rate: float = Field(0.0, ge=0)
    """Peak learning rate; 0 for the preset's."""
    processes: int = Field(2, ge=1)
    """Processes (GPUs) that share the training."""


class Benchmark(Part):
    margin: float = Field(0.0, ge=0)
    """How much less accurate than the champion a new model may be, in shares; the interval's lower end counts."""


class EditorRl(Part):
    editor: str = "tiny-editor"
    """The editor to start from."""
    iterations: int = Field(200, ge=1)
    """Updates of the editor."""
    tasks: int = Field(16, ge=1)
    """Prompts an update."""
    members: int = Field(8, ge=2)
    """Edits a prompt; they are ranked against each other."""
    algorithm: str = "nft"
    """flow-grpo, or nft (DiffusionNFT)."""
    learning_rate: float = Field(1e-3, gt=0)
    """Learning rate of the adapter."""
    processes: int = Field(2, ge=1)
    """Processes (GPUs) that share the training."""


class EditorEval(Part):
    samples: int = Field(1, ge=1)
    """Edits a task, with the same noise for both editors."""
    steps: int = Field(8, ge=1)
    """Denoising steps of an edit."""
    margin: float = Field(0.0, ge=0)
    """How much lower the share of right edits may be; the interval's lower end counts."""


class LoopSettings(Part):
    """Everything that a run of the loop can be told; the key of a part is its stage's name."""

    seed: int = 0
    """Seed of every stage."""
    scenes: Scenes = Scenes()
    candidates: Candidates = Candidates()
    annotate: Annotate = Annotate()
    reward: Reward = Reward()
    benchmark: Benchmark = Benchmark()
    editor_rl: EditorRl = EditorRl()
    editor_eval: EditorEval = EditorEval()


DEMO = LoopSettings(
    annotate=Annotate(lead="lea", gold_share=0.03, repeat_share=0.03, alpha_if=0.6, alpha_vq=0.4),
)
SMALLEST = LoopSettings(
    scenes=Scenes(train=24, prompts=16, heldout=24),
    candidates=Candidates(per_task=3, steps=4),
    annotate=Annotate(annotators=("ada", "bo"), overlap=2, lead="lea", gold_share=0.05, repeat_share=0.05),
    reward=Reward(epochs=1),
    benchmark=Benchmark(margin=2.0),
    editor_rl=EditorRl(iterations=2, tasks=4, members=4),
    editor_eval=EditorEval(steps=4, margin=2.0),
)
PRESETS = {"demo": DEMO, "smallest": SMALLEST}
"""Sizes of a turn. `smallest` shows that all parts work together; its gates pass whatever comes."""
