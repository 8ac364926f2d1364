"""Probabilities of the first token of a judge's answer: the request for them, and how they are read."""

from collections import defaultdict
from collections.abc import Sequence

from editloop.errors import EditLoopError
from editloop.scoring.endpoint_questions import ChatReply, FieldValue

TOP_LOGPROBS = 20
"""Most likely tokens whose probabilities are asked for: the most that vLLM and OpenAI give."""
FIRST_TOKEN_FIELDS: dict[str, FieldValue] = {
    "temperature": 1.0,
    "top_p": 1.0,
    "top_k": -1,
    "repetition_penalty": 1.0,
    "max_tokens": 1,
    "logprobs": True,
    "top_logprobs": TOP_LOGPROBS,
}
"""Fields of a request for the probabilities of the first token, which nothing may distort."""


def token_chances(reply: ChatReply, tokens: Sequence[str]) -> list[float]:
    """Return the probabilities of some first tokens; 0 for one that is not among the likeliest.

    Args:
        reply: The reply.
        tokens: The tokens. Case and spaces around do not matter.

    Raises:
        EditLoopError: The endpoint gave no probabilities.
    """
    if reply.first_token is None:
        raise EditLoopError(
            "endpoint: its reply has no token log-probabilities (`logprobs`), which this judge is read from. Serve the "
            "model with vLLM, or take a judge that writes its scores."
        )
    chances: dict[str, float] = defaultdict(float)
    for token, chance in reply.first_token:
        chances[token_name(token)] += chance
    return [chances[token_name(token)] for token in tokens]


def token_name(token: str) -> str:
    """Return what two spellings of a token have in common: without spaces around it, in lower case.

    Args:
        token: The token, as an endpoint or a user writes it.
    """
    return token.strip(" \u0120\u2581\t\n").lower()
