"""nano's tokenizer gives every text back and keeps Gemma 4's control ids."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from train.tokenizer import CONTROL, VOCABULARY, grammar_texts, train, write

ENGLISH = ["The quick brown fox jumps over the lazy dog.\nIt was 42 years old. " * 20]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small tokenizer, written and ready to load."""
    out = tmp_path_factory.mktemp("tokenizer")
    write(train(ENGLISH, grammar_texts(0, 1_500_000)), out)
    return out


@pytest.fixture(scope="session")
def tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer as the runner loads it."""
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def there_and_back(tokenizer: Tokenizer, text: str) -> str:
    """Return the text after encoding and decoding."""
    return tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False)


@settings(max_examples=200, deadline=None)
@given(text=st.text(st.characters(exclude_characters="▁", exclude_categories=["Cs"])))
def test_any_text_comes_back(tokenizer: Tokenizer, text: str) -> None:
    """Decoding undoes encoding for every text without the space mark itself."""
    assert text == there_and_back(tokenizer, text)


@pytest.mark.parametrize(
    "text", ["  two  spaces  ", "\n\n a\n", "Grüße 日本 😀👩‍🚀", "x\t\r\ny", "", " ", "1 23 4.5"]
)
def test_awkward_texts_come_back(tokenizer: Tokenizer, text: str) -> None:
    """Spaces, line breaks and characters outside the vocabulary survive."""
    assert text == there_and_back(tokenizer, text)


def test_control_tokens_keep_their_ids(tokenizer: Tokenizer) -> None:
    """Control tokens have Gemma 4's ids and are one token in running text."""
    assert {i: i for i in CONTROL} == {i: tokenizer.token_to_id(t) for i, t in CONTROL.items()}
    assert tokenizer.encode("<|turn><turn|>").ids == [105, 106]


def test_vocabulary_has_its_full_size(tokenizer: Tokenizer) -> None:
    """The model's embedding has exactly as many rows as there are tokens."""
    assert tokenizer.get_vocab_size() == VOCABULARY


def test_digits_stand_alone_and_no_bos_is_added(tokenizer: Tokenizer) -> None:
    """Numbers are read digit by digit; the template alone writes `<bos>`."""
    assert tokenizer.encode("420").tokens == ["4", "2", "0"]


def test_conversations_survive(tokenizer: Tokenizer) -> None:
    """Rendered conversations, control tokens included, come back whole."""
    for text in grammar_texts(5, 50_000):
        assert text == there_and_back(tokenizer, text)


def test_config_names_the_tokens_that_the_chat_code_needs(folder: Path) -> None:
    """bos, eos, pad and the turn marks are named."""
    config = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))

    assert tuple(config[f"{n}_token"] for n in ("bos", "eos", "pad")) == ("<bos>", "<eos>", "<pad>")
    assert (config["sot_token"], config["eot_token"]) == ("<|turn>", "<turn|>")


def test_transformers_loads_it(folder: Path, tokenizer: Tokenizer) -> None:
    """transformers reads the same ids from the written folder."""
    transformers = pytest.importorskip("transformers")
    fast = transformers.PreTrainedTokenizerFast.from_pretrained(folder)

    assert tokenizer.encode("Hello, nano 42!").ids == fast("Hello, nano 42!")["input_ids"]
    assert (fast.bos_token_id, fast.eos_token_id, fast.pad_token_id) == (2, 1, 0)
