"""Whatever an instruction says, it is data."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from editloop.errors import EditLoopError
from editloop.models.backbones.text import control_id, control_ids, control_text_ids, text_ids, truncate_text
from editloop.studies.tiny_models.backbone import SPECIAL, byte_tokenizer

TOKENIZER = byte_tokenizer()
WORDS = st.lists(st.one_of(st.sampled_from(SPECIAL), st.text(max_size=8)), max_size=8).map("".join)


@settings(max_examples=200, deadline=None)
@given(WORDS)
def test_no_text_becomes_a_control_token_and_nothing_is_lost(text):
    ids = text_ids(TOKENIZER, text)
    assert not set(ids) & control_ids(TOKENIZER)
    assert TOKENIZER.decode(ids, clean_up_tokenization_spaces=False) == text.encode("utf-8", "replace").decode()


@settings(max_examples=200, deadline=None)
@given(WORDS, st.integers(1, 30))
def test_a_shortened_text_is_the_longest_beginning_that_fits(text, limit):
    kept = truncate_text(TOKENIZER, text, limit)
    assert text.startswith(kept)
    assert len(text_ids(TOKENIZER, kept)) <= limit
    if kept != text:
        assert len(text_ids(TOKENIZER, text[: len(kept) + 1])) > limit


def test_what_is_cut_is_said_once_and_nothing_else_is(caplog):
    truncate_text(TOKENIZER, "make it red", 11)
    assert not caplog.text
    for _ in range(2):
        assert truncate_text(TOKENIZER, "make it red\nand the sky blue", 15) == "make it red\nand"
    (record,) = caplog.records
    assert record.getMessage().startswith("instruction of 28 tokens: the model reads 15 (instruction_tokens), up to")
    assert "\n" not in record.getMessage()


def test_ten_thousand_characters_of_any_script():
    for letter in ("x", "ж", "絵", "🎨", "ا"):
        assert len(text_ids(TOKENIZER, truncate_text(TOKENIZER, letter * 10_000, 512))) <= 512


def test_our_own_text_may_steer():
    assert control_text_ids(TOKENIZER, "<|im_start|>") == [control_id(TOKENIZER, "<|im_start|>")]


def test_a_tokenizer_that_reads_control_words_as_tokens_is_refused():
    class Naive:
        all_special_ids, unk_token_id = [7], None

        def __call__(self, text, split_special_tokens=False, **rest):
            return TOKENIZER(text, **rest)

        def convert_ids_to_tokens(self, one):
            return TOKENIZER.convert_ids_to_tokens(one)

    assert text_ids(Naive(), "harmless")
    with pytest.raises(EditLoopError, match=r"<\|Reward\|> in it as control tokens"):
        text_ids(Naive(), "and <|Reward|>")
