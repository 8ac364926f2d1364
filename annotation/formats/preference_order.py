"""Orders that people state by comparing edits, and the one order of all of an annotator's edits that follows from them.

A comparison is a list of groups, the best first; edits of one group are equally good. Nothing is filled in: edits are
in order only where comparisons say so, one by one or in a row (a before b and b before c give a before c).
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import TypeVar

Groups = list[list[str]]
"""An order: groups of equally good edits, the best first."""
Answer = TypeVar("Answer")


def merged_order(comparisons: Sequence[Groups]) -> Groups | str:
    """Return the order of all edits that follows from comparisons, or why there is none.

    Args:
        comparisons: The comparisons. Each edit is in one at least.
    """
    names = sorted({name for groups in comparisons for group in groups for name in group})
    index = {name: number for number, name in enumerate(names)}
    reach = [1 << number for number in range(len(names))]
    """By edit, as bits: the edits that it is at least as good as."""
    strict: list[tuple[int, int]] = []
    for groups in comparisons:
        for group in groups:
            for name, equal in pairwise([*group, group[0]]):
                reach[index[name]] |= 1 << index[equal]
        for better, worse in pairwise(groups):
            strict.append((index[better[0]], index[worse[0]]))
            reach[index[better[0]]] |= 1 << index[worse[0]]
    for middle in range(len(names)):
        for number in range(len(names)):
            if reach[number] >> middle & 1:
                reach[number] |= reach[middle]
    for better_index, worse_index in strict:
        if reach[worse_index] >> better_index & 1:
            first, second = sorted((names[better_index], names[worse_index]))
            return f"it contradicts other answers on {first} and {second}"
    for first_index, name in enumerate(names):
        for second_index in range(first_index):
            if not (reach[first_index] >> second_index & 1 or reach[second_index] >> first_index & 1):
                return f"nothing says which of {names[second_index]} and {name} is better"
    by_reach: dict[int, list[str]] = {}
    for number, name in enumerate(names):
        by_reach.setdefault(reach[number].bit_count(), []).append(name)
    return [by_reach[count] for count in sorted(by_reach, reverse=True)]


def ordered_answers(
    answers: Sequence[tuple[Answer, Sequence[Groups]]],
) -> tuple[Groups, list[tuple[Answer, str]]]:
    """Return the order that follows from an annotator's answers on a task, and the answers that are left out of it.

    All answers are taken if an order of all their edits follows from them. Else they are taken one by one, in their
    order, as long as one does: an answer that contradicts those before it, or that leaves the order of two edits open,
    is left out unless later ones complete it.

    Args:
        answers: Each answer with its comparisons.

    Returns:
        The order, and each answer that is left out with the reason.
    """
    whole = merged_order([groups for _, comparisons in answers for groups in comparisons])
    if not isinstance(whole, str):
        return whole, []
    order: Groups = []
    accepted: list[Groups] = []
    pending, reasons = list(range(len(answers))), dict[int, str]()
    progress = True
    while progress:
        progress = False
        for number in list(pending):
            tried = merged_order([*accepted, *answers[number][1]])
            if isinstance(tried, str):
                reasons[number] = tried
                continue
            order, progress = tried, True
            accepted += answers[number][1]
            pending.remove(number)
    return order, [(answers[number][0], reasons[number]) for number in pending]
