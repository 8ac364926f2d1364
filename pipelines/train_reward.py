"""train-reward: from a complete campaign to a reward model that has passed its gate, or has not."""

from typing import NamedTuple

from kfp import dsl

from components.benchmark.component import benchmark
from components.collect.component import collect
from components.dataset.component import dataset
from components.promote.component import promote
from components.reward.component import reward


class TrainRewardOutputs(NamedTuple):
    model: dsl.Model
    promotion: dsl.Artifact


@dsl.pipeline(name="train-reward", description="Train the reward model on a complete campaign and gate it.")
def train_reward(
    candidates_uri: str,
    campaign_uri: str,
    candidates_sha256: str = "",
    campaign_sha256: str = "",
    answers_sha256: str = "",
    withdrawn_sha256: str = "",
    preset: str = "editreward-tiny",
    base: str = "",
    epochs: int = 0,
    learning_rate: float = 0.0,
    processes: int = 2,
    gate: str = "reward",
    seed: int = 0,
    run_key: str = "",
) -> TrainRewardOutputs:
    """Export the experts' judgements, version them as a dataset, train a reward model, measure and promote it.

    Args:
        candidates_uri: Folder of candidate edits that collect-preferences made.
        campaign_uri: Folder of the campaign that collect-preferences opened.
        candidates_sha256: Content address of the candidates.
        campaign_sha256: Content address of the campaign.
        answers_sha256: Answers that the campaign was closed with; empty takes those that are there.
        withdrawn_sha256: What was withdrawn of them since, by its content address; the list itself is in the dataset
            repository.
        preset: Model and training, a shipped name or a YAML file.
        base: Model to start from, a folder or a shipped name; empty for the preset's.
        epochs: Passes over the pairs; 0 for the preset's.
        learning_rate: Peak learning rate; 0 for the preset's.
        processes: Processes (GPUs) to train on.
        gate: What is asked before a model is promoted, a shipped gate or a YAML file.
        seed: Seed of split, order, new weights and bootstrap.
        run_key: Runs of one key are one piece of work; empty for a run of its own.
    """
    job_id = dsl.PIPELINE_JOB_ID_PLACEHOLDER
    candidates_import = dsl.importer(
        artifact_uri=candidates_uri, artifact_class=dsl.Dataset, metadata={"sha256": candidates_sha256}
    )
    candidates_import.set_display_name("candidates")
    campaign_import = dsl.importer(
        artifact_uri=campaign_uri, artifact_class=dsl.Artifact, metadata={"sha256": campaign_sha256}
    )
    campaign_import.set_display_name("campaign")
    judged = collect(
        campaign=campaign_import.output,
        candidates=candidates_import.output,
        answers_sha256=answers_sha256,
        run_key=run_key,
        job_id=job_id,
    )
    built = dataset(
        judgements=judged.outputs["judgements"],
        candidates=candidates_import.output,
        withdrawn_sha256=withdrawn_sha256,
        seed=seed,
        run_key=run_key,
        job_id=job_id,
    )
    trained = reward(
        dataset=built.outputs["dataset"],
        preset=preset,
        base=base,
        epochs=epochs,
        learning_rate=learning_rate,
        processes=processes,
        seed=seed,
        run_key=run_key,
        job_id=job_id,
    )
    measured = benchmark(
        dataset=built.outputs["dataset"],
        model=trained.outputs["model"],
        gate=gate,
        seed=seed,
        run_key=run_key,
        job_id=job_id,
    )
    promoted = promote(
        model=trained.outputs["model"],
        benchmark=measured.outputs["benchmark"],
        dataset=built.outputs["dataset"],
        version=built.outputs["version"],
        run_key=run_key,
        job_id=job_id,
    )
    return TrainRewardOutputs(model=trained.outputs["model"], promotion=promoted.outputs["promotion"])
