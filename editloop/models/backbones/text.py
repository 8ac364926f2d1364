"""What a user wrote, as token ids: data, whatever it says.

A control token (`<|Reward|>`, `<|image_pad|>`, `<|im_end|>`) spelt out in an instruction is read letter by letter, as
any other words are; it never becomes the token.
"""

from transformers import PreTrainedTokenizerBase

from editloop.errors import EditLoopError


def text_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of a text from outside, without special tokens of any kind.

    EditLoopError where the tokenizer turns a control word into its token all the same.
    """
    ids: list[int] = tokenizer(
        text, add_special_tokens=False, split_special_tokens=True, truncation=False, verbose=False
    ).input_ids
    control_tokens = control_ids(tokenizer) & set(ids)
    if control_tokens:
        names = ", ".join(sorted(str(tokenizer.convert_ids_to_tokens(token_id)) for token_id in control_tokens))
        raise EditLoopError(
            f"text {text[:60]!r}: this tokenizer reads {names} in it as control tokens; text from outside must stay "
            "data. Use a tokenizer that marks these as special tokens."
        )
    return ids


def control_ids(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Ids of the tokens that steer a model: all special ones but that for unknown words."""
    return set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}


def truncate_text(tokenizer: PreTrainedTokenizerBase, text: str, limit: int) -> str:
    """The text's longest beginning of at most `limit` tokens, cut between two characters; the text itself if it fits.

    Where a limit cuts an instruction, the model sees its beginning: that is the defined result for an over-long one.
    """
    if len(text_ids(tokenizer, text)) <= limit:
        return text
    spans = tokenizer(
        text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True, verbose=False
    ).offset_mapping
    return text[: spans[limit][0]]


def control_text_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of our own text, in which control tokens are meant as such."""
    ids: list[int] = tokenizer(text, add_special_tokens=False, split_special_tokens=False, verbose=False).input_ids
    return ids


def control_id(tokenizer: PreTrainedTokenizerBase, token: str) -> int:
    """The id of one control token; EditLoopError where the tokenizer does not have it as one."""
    token_id = tokenizer.convert_tokens_to_ids(token)
    if not isinstance(token_id, int) or token_id not in control_ids(tokenizer):
        raise EditLoopError(f"tokenizer: {token} is no special token of it; give the tokenizer that the model has.")
    return token_id
