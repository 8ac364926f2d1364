"""What stage annotate is."""

from pydantic import Field, field_validator

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
    gold_pages: int = Field(0, ge=0)
    """Gold pages in all, instead of a share of the tasks; every expert rates them."""
    gold_answers: str = ""
    """The lead's own known answers for gold pages, as CSV text with the columns task, candidate, if, vq."""
    repeat_share: float = Field(0.0, ge=0, le=0.5)
    """Pages per task that are repeated, 0 to 0.5, with the candidates in another order."""
    repeat_pages: int = Field(0, ge=0)
    """Repeated pages in all, instead of a share of the tasks."""
    training_pages: int = Field(0, ge=0, le=100)
    """Training pages: gold in a project of its own, which show the known answer after an expert's; 0 for none."""
    training_passing: float = Field(0.8, gt=0, le=1)
    """Share of the known ratings that an expert must get right to pass the training."""
    training_required: bool = True
    """Whether answers count only from experts who passed the training."""
    norming_pages: int = Field(0, ge=0, le=100)
    """Tasks that every expert rates first, to be discussed together; they teach no model."""
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

    @field_validator("name")
    @classmethod
    def _one_spelling(cls, value: str) -> str:
        from annotation.campaigns.campaign_settings import campaign_name

        return campaign_name(value)

    def check(self) -> None:
        """Check the campaign's settings as a whole, before candidates are made for it.

        Raises:
            EditLoopError: The settings have faults.
        """
        from annotation.campaigns.campaign_settings import settings_of

        settings_of(**self.model_dump(exclude={"follow_up"}))


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
