"""What stage annotate is."""

from pydantic import Field

from editloop.lineage.stage import Stage, StageFile, StageParameters


class AnnotateParameters(StageParameters):
    """Parameters of stage annotate."""

    name: str
    """Name of the campaign in Label Studio."""
    annotators: list[str]
    """Account names of the experts."""
    overlap: int = Field(2, ge=1)
    """Number of experts who judge each task; agreement needs two or more."""
    lead: str = ""
    """Account name of the lead, who decides tasks in conflict; empty for none."""
    candidates_per_task: int = Field(0, ge=0)
    """Candidates on a page, 2 to 7; 0 shows all."""
    axes: str = "{}"
    """Other words for the axes, as JSON: {"if": {"name": ..., "levels": [...]}}."""
    gold_share: float = Field(0.0, ge=0, le=0.5)
    """Gold pages (pages with a known answer) per task, 0 to 0.5, made where tasks have a target."""
    gold_answers: str = ""
    """The lead's own known answers for gold pages, as CSV text with the columns task, candidate, if, vq."""
    repeat_share: float = Field(0.0, ge=0, le=0.5)
    """Pages per task that are repeated, 0 to 0.5, with the candidates in another order."""
    guidelines: str = ""
    """Guidelines for annotators, in Markdown; empty for the default ones."""
    alpha_if: float = Field(-1.0, ge=-1, le=1)
    """Lowest agreement (Krippendorff's alpha) on instruction following at which a campaign closes by itself; -1 for no
    gate."""
    alpha_vq: float = Field(-1.0, ge=-1, le=1)
    """Lowest agreement on visual quality, likewise."""
    seed: int = 0
    """Seed of every order and draw."""
    follow_up: str = "{}"
    """Arguments of the pipelines that follow the campaign, by pipeline, as JSON: {"train-reward": {"epochs": 8},
    "improve-editor": {"edits_to_practise": "kitchens", "edits_held_out": "kitchens-test"}, "collect-preferences":
    {"edits": "kitchens-2"}}. improve-editor and collect-preferences (the next campaign) follow only if they are
    named."""


ANNOTATE = Stage(
    name="annotate",
    title="Open the campaign",
    summary="Open a campaign in Label Studio, without waiting for the experts.",
    parameters=AnnotateParameters,
    inputs=(StageFile("candidates", "Tasks and candidate edits, as stage candidates wrote them."),),
    outputs=(StageFile("output", "The open campaign.", "campaign", "Artifact"),),
    pipelines=("collect-preferences",),
    tags=frozenset({"follow_up"}),
)
