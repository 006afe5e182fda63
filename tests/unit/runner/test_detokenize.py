"""Tokens become text piece by piece, and the pieces are the text."""

from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from gemmarunner.detokenize import Detokenizer, Vocabulary
from tests.fakes.nano import nano_tokenizer
from tests.fakes.tiny_text import VOCAB, tiny_tokenizer


def pieces_of(tokenizer: Tokenizer, ids: list[int], hidden: frozenset[int]) -> list[str]:
    """What each token gives, and at last what was held."""
    stream = Detokenizer(Vocabulary(tokenizer, hidden))
    return [*(stream.push(id) for id in ids), stream.close()]


@settings(max_examples=100, deadline=None)
@given(ids=st.lists(st.integers(0, VOCAB + 5), max_size=30))
def test_pieces_add_up_to_the_whole_text(ids: list[int]) -> None:
    """Any tokens, valid characters or not, give what decoding all at once gives."""
    shown = [id for id in ids if id > 1]

    text = "".join(pieces_of(tiny_tokenizer(), ids, frozenset((0, 1))))

    assert text == tiny_tokenizer().decode(shown, skip_special_tokens=False)


@settings(max_examples=30, deadline=None)
@given(ids=st.lists(st.integers(0, 400), max_size=30))
def test_a_stripped_first_space_is_stripped_once(ids: list[int]) -> None:
    """A decoder that takes the space off the first token does so for the answer's first only."""
    tokenizer = Tokenizer.from_str(tiny_tokenizer().to_str())
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*parts, decoders.Strip(" ", 1, 0)])

    text = "".join(pieces_of(tokenizer, ids, frozenset()))

    assert text == tokenizer.decode(ids, skip_special_tokens=False)


@settings(max_examples=30, deadline=None)
@given(data=st.binary(max_size=20))
def test_byte_level_tokens_add_up_too(data: bytes) -> None:
    """A tokenizer of GPT-2's kind, whose every token is bytes, streams as exactly."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: id for id, letter in enumerate(alphabet)}, []))
    tokenizer.decoder = decoders.ByteLevel()
    ids = [byte % len(alphabet) for byte in data]

    assert "".join(pieces_of(tokenizer, ids, frozenset())) == tokenizer.decode(ids)


@settings(max_examples=60, deadline=None)
@given(text=st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\ufffd▁")))
def test_no_piece_holds_half_a_character(text: str) -> None:
    """Text that comes back as tokens never shows a replacement character on its way."""
    ids = tiny_tokenizer().encode(text, add_special_tokens=False).ids

    pieces = pieces_of(tiny_tokenizer(), ids, frozenset())

    assert "".join(pieces) == text
    assert not any("\ufffd" in piece for piece in pieces)


def test_words_come_at_once() -> None:
    """An ordinary token is not held back."""
    ids = tiny_tokenizer().encode("a turn of é", add_special_tokens=False).ids
    stream = Detokenizer(Vocabulary(tiny_tokenizer()))

    ordinary = [stream.push(id) for id in ids[:-2]]

    assert all(ordinary)
    assert [stream.push(ids[-2]), stream.push(ids[-1]), stream.close()] == ["", "", "é"]


def test_control_tokens_show_as_their_text() -> None:
    """The parser needs them; the end of the text is hidden."""
    assert pieces_of(tiny_tokenizer(), [100, 101, 1], frozenset((1,)))[:2] == [
        "<|channel>",
        "<channel|>",
    ]


@settings(max_examples=60, deadline=None)
@given(seed=st.lists(st.integers(0, 10**6), max_size=40))
def test_nanos_pieces_add_up(seed: list[int]) -> None:
    """The same holds for the built-in pair's tokenizer."""
    tokenizer = nano_tokenizer()
    ids = [number % tokenizer.get_vocab_size() for number in seed]

    text = "".join(pieces_of(tokenizer, ids, frozenset()))

    assert text == tokenizer.decode(ids, skip_special_tokens=False)
