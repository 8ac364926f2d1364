"""How informative each annotator's ratings are, by Dawid and Skene's model of true levels and rating errors."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Integer
from numpy.typing import NDArray
from scipy.sparse import csr_array

from editloop.data.vocabulary import HIGHEST_RATING, LOWEST_RATING, Axis

LEVELS = range(LOWEST_RATING, HIGHEST_RATING + 1)
ITERATIONS, TOLERANCE, LEAST = 100, 1e-5, 1e-10
"""Of the fit: most iterations, the growth of the bound (nats per rating) below which it stops, and the smallest
probability."""
BORROWED = 10.0
"""Average ratings added to an annotator's own before the weight is computed: with three ratings an annotator counts
nearly as the average, with three hundred mostly as themselves."""


class Reliability(NamedTuple):
    """The fit of Dawid and Skene's model to one axis."""

    weights: dict[str, float]
    """By annotator, 0..1: the share of the true level's entropy that the rating removes. 0 = uninformative. A constant
    shift costs little, as it can be undone."""
    posterior: dict[tuple[str, str], Float[NDArray[np.float64], "4"]]
    """By (task, candidate): probabilities of the true levels 1, 2, 3, 4; sums to 1."""


def reliability(table: pd.DataFrame, axis: Axis) -> Reliability:
    """Fit the model to the ratings of one axis.

    A weight is I(rating; true) / H(true) of an annotator's expected counts, with BORROWED ratings of all annotators
    added. All weights are 1 where nothing can be compared: there is one annotator, or only one level occurs. Two
    ratings of one candidate by one annotator both count. A. P. Dawid, A. M. Skene, Applied Statistics 28 (1979) 20-28.

    Args:
        table: A `judgement_table`; its columns `task_id`, `candidate_id`, `annotator`, `item` and the axis are read.
        axis: The axis.
    """
    if table.empty:
        return Reliability({}, {})
    ratings = table[axis].to_numpy()
    annotators, names = pd.factorize(table["annotator"].astype(str), sort=True)
    items = table["item"].to_numpy()
    true = true_levels(items, annotators, ratings - LOWEST_RATING)
    counts = np.zeros((len(names), len(LEVELS), len(LEVELS)))
    np.add.at(counts, (annotators, ratings - LOWEST_RATING), true[items])
    everybody: NDArray[np.float64] = counts.sum(axis=0)
    informed = len(names) > 1 and (everybody.sum(axis=0) > 0.5).sum() > 1
    shares = counts + BORROWED * everybody / everybody.sum()
    weights = {name: information_share(joint) if informed else 1.0 for name, joint in zip(names, shares, strict=True)}
    first = table.drop_duplicates("item").sort_values("item")
    keys = zip(first["task_id"].astype(str), first["candidate_id"].astype(str), strict=True)
    return Reliability(weights, dict(zip(keys, true, strict=True)))


def true_levels(
    items: Integer[NDArray[np.integer], " N"],
    annotators: Integer[NDArray[np.integer], " N"],
    ratings: Integer[NDArray[np.integer], " N"],
) -> Float[NDArray[np.float64], "items levels"]:
    """Return the probability of each true level of each item.

    The model is fitted by expectation maximisation, starting from each item's shares of votes. The steps and the
    stopping rule are those of crowd-kit's DawidSkene, on a sparse matrix (items, annotators x levels). A level that
    nobody gave has probability 0.

    Args:
        items: The item of each rating, numbered from 0 without gaps.
        annotators: The annotator of each rating, numbered from 0 without gaps.
        ratings: The level of each rating, from 0.

    Returns:
        Rows of LEVELS probabilities that sum to 1.
    """
    levels, heard = np.unique(ratings, return_inverse=True)
    people, count = int(annotators.max()) + 1, len(levels)
    votes = csr_array(
        (np.ones(len(items)), (items, annotators * count + heard)), shape=(int(items.max()) + 1, people * count)
    )
    used = (np.asarray(votes.sum(axis=0)) > 0).reshape(people, count, 1)
    raters: NDArray[np.float64] = np.asarray(votes.sum(axis=1))
    shares = np.stack([np.bincount(items[heard == level], minlength=len(raters)) for level in range(count)], axis=1)
    true: NDArray[np.float64] = shares / raters[:, None]
    bound = -np.inf
    for last in range(ITERATIONS + 1):
        prior: NDArray[np.float64] = np.maximum(true.mean(axis=0), LEAST)
        errors: NDArray[np.float64] = np.where(
            used, np.maximum((votes.T @ true).reshape(people, count, count), LEAST), 0.0
        )
        errors /= errors.sum(axis=1, keepdims=True)
        log_errors = np.log(np.where(used, errors, 1.0)).reshape(people * count, count)
        likelihood: NDArray[np.float64] = votes @ log_errors
        if last:
            sure = np.maximum(true, LEAST)
            gain = true * (likelihood + raters[:, None] * np.log(prior))
            new = float(gain.sum()) - float((sure * np.log(sure)).sum())
            if last == ITERATIONS or new / len(items) - bound < TOLERANCE:
                break
            bound = new / len(items)
        log_posterior = np.log(prior) + likelihood
        true = np.exp(log_posterior - log_posterior.max(axis=1, keepdims=True))
        true /= true.sum(axis=1, keepdims=True)
    posterior = np.zeros((len(true), len(LEVELS)))
    posterior[:, levels] = true
    return posterior


def information_share(counts: Float[NDArray[np.float64], "rated true"]) -> float:
    """Return I(rating; true) / H(true): 0 = independent, 1 = the rating determines the true level.

    Args:
        counts: Counts by rated and true level. At least two true levels must have counts.
    """
    joint = counts / float(counts.sum())
    rated: NDArray[np.float64] = joint.sum(axis=1, keepdims=True)
    true: NDArray[np.float64] = joint.sum(axis=0, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        information = np.nansum(joint * np.log(joint / (rated * true)))
        entropy = -np.nansum(true * np.log(true))
    return float(np.clip(information / entropy, 0, 1))
