"""The tokenizer that GGUF metadata describe gives the ids of the one they were written from."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import gguf
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from gemmad.api.errors import LoadFailed
from gemmad.formats.gguf import read_gguf
from gemmarunner.chat import Format
from gemmarunner.export_metadata import add_text
from gemmarunner.gguf_tokenizer import HF_JSON, end_ids, make_format, make_tokenizer, own_template
from gemmarunner.models.gguf_file import GgufModel
from tests.fakes.nano import nano_prompts, nano_tokenizer

FORMAT = Format(template="{{ bos_token }}", bos="<bos>", eos="<eos>")
HARD = [
    "",
    " ",
    "    leading, doubled  and trailing  ",
    "\n",
    "\n\n\n a \n\t\n",
    "tab\tand\r\nreturn",
    "▁ a low line ▁▁",
    "<bos><eos><pad><unk>",
    "<|turn>user\nHi<turn|>\n<|turn>model\n<|channel>thought\n<channel|>",
    '<|tool_call>call:f{a:<|"|>b<|"|>}<tool_call|><|tool_response>',
    "<|turn <turn|> <| |> <unused99> <unused7>",
    "<0x0A> <0xFF> <0x00>",
    "\x00\x01\x7f\x80\u200b\u202e\ufeff",
    "日本語 Ελληνικά עברית العربية हिन्दी 한국어",
    "🦙🏳️‍🌈 é e\u0301 ﬁ Ⅷ 𝔊 \U0010ffff",
    "HTTPServerError2024 x86_64 ABc aBC 3.14159 1,000,000 --flag=value",
    "a" * 3000,
    "don't can't it's I'm we'll they've",
]


@cache
def gemmas() -> Tokenizer:
    """Nano's tokens and merges under Gemma 4's rules: nothing is split before merging."""
    made = json.loads(nano_tokenizer().to_str())
    made["pre_tokenizer"] = {
        "type": "Split",
        "pattern": {"String": " "},
        "behavior": "MergedWithPrevious",
        "invert": False,
    }
    made["model"]["fuse_unk"] = True
    return Tokenizer.from_str(json.dumps(made))


def written(tokenizer: Tokenizer, path: Path, format: Format = FORMAT) -> GgufModel:
    """The tokenizer as a GGUF file has it."""
    writer = gguf.GGUFWriter(path, "gemma4")
    add_text(writer, tokenizer, format, {})
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    header = read_gguf(path)
    return GgufModel("gemma4", header.metadata, {})


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> GgufModel:
    """Gemma's rules as metadata."""
    return written(gemmas(), tmp_path_factory.mktemp("gguf") / "gemma.gguf")


@pytest.fixture(scope="module")
def read_back(model: GgufModel) -> Tokenizer:
    """What we make of the metadata."""
    return make_tokenizer(model)


def changed(whole: GgufModel, **keys: Any) -> GgufModel:
    """The metadata with other values under `tokenizer.ggml`; None takes a key away."""
    metadata = dict(whole.metadata) | {f"tokenizer.ggml.{key}": v for key, v in keys.items()}
    return GgufModel("gemma4", {k: v for k, v in metadata.items() if v is not None}, {})


@pytest.mark.parametrize("text", HARD)
def test_hard_texts_have_the_same_ids(read_back: Tokenizer, text: str) -> None:
    """Spaces, lines, controls, bytes and scripts, and the same text back."""
    expected = gemmas().encode(text, add_special_tokens=False).ids
    found = read_back.encode(text, add_special_tokens=False).ids

    assert found == expected
    assert read_back.decode(found) == gemmas().decode(expected)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=80))
def test_any_text_has_the_same_ids(read_back: Tokenizer, text: str) -> None:
    """Texts nobody thought of."""
    expected = gemmas().encode(text, add_special_tokens=False).ids

    assert read_back.encode(text, add_special_tokens=False).ids == expected


def test_conversations_have_the_same_ids(read_back: Tokenizer) -> None:
    """Rendered prompts of the built-in pair."""
    for ids in nano_prompts(40):
        text = gemmas().decode(ids, skip_special_tokens=False)
        expected = gemmas().encode(text, add_special_tokens=False).ids

        assert read_back.encode(text, add_special_tokens=False).ids == expected


def test_transformers_reads_the_same(model: GgufModel, read_back: Tokenizer) -> None:
    """Its own conversion of these metadata gives our ids."""
    mapping = pytest.importorskip("transformers.integrations.gguf.gguf_tokenizer_mapping")
    keys = {"tokens": "tokens", "merges": "merges", "token_type": "token_type"}
    given_ = {name: model.metadata[f"tokenizer.ggml.{key}"] for name, key in keys.items()}
    theirs, _ = mapping.convert_gguf_tokenizer("gemma4", given_ | {"tokenizer_type": "gemma4"})

    for text in HARD:
        ids = theirs.encode(text, add_special_tokens=False).ids
        assert read_back.encode(text, add_special_tokens=False).ids == ids


def test_controls_are_special(read_back: Tokenizer) -> None:
    """Also those that writers mark as text for their parsers, so that users cannot type them."""
    added = {
        token.content: token.special for token in read_back.get_added_tokens_decoder().values()
    }
    original = gemmas().get_added_tokens_decoder().values()

    assert added == {token.content: token.special for token in original}


def test_own_rules_come_whole(tmp_path: Path) -> None:
    """A tokenizer that splits words first is the same, rule for rule."""
    model = written(nano_tokenizer(), tmp_path / "nano.gguf")

    assert HF_JSON in model.metadata
    assert make_tokenizer(model).to_str() == nano_tokenizer().to_str()


def test_whole_rules_of_other_tokens_are_refused(tmp_path: Path) -> None:
    """Two vocabularies in one file: one of them is not the model's."""
    model = written(nano_tokenizer(), tmp_path / "nano.gguf")
    tokens = list(model.metadata["tokenizer.ggml.tokens"])  # type: ignore[arg-type]
    tokens[300], tokens[301] = tokens[301], tokens[300]

    with pytest.raises(LoadFailed, match="other tokens"):
        make_tokenizer(changed(model, tokens=tokens))


def test_missing_merges_follow_from_the_tokens(model: GgufModel) -> None:
    """Derived as transformers derives them for Gemma: in the order of the tokens."""
    base = pytest.importorskip("transformers.tokenization_utils_base")
    vocab = gemmas().get_vocab(with_added_tokens=False)
    order = dict(sorted(vocab.items(), key=lambda item: item[1]))
    expected = base.generate_merges(order, {token: -id for token, id in order.items()})
    found = json.loads(make_tokenizer(changed(model, merges=None)).to_str())["model"]["merges"]

    assert [tuple(pair) for pair in found] == [tuple(pair[:2]) for pair in expected]


def test_the_other_spelling_of_the_kind_is_known(model: GgufModel) -> None:
    """Some writers say llama with Gemma 4's pre-tokenizer."""
    found = make_tokenizer(changed(model, model="llama", pre="gemma4"))

    assert found.encode("Hi there").ids == gemmas().encode("Hi there").ids


@pytest.mark.parametrize("kind", ["gpt2", "llama", None])
def test_other_kinds_are_refused(model: GgufModel, kind: str | None) -> None:
    """A wrong tokenizer would give fluent nonsense."""
    with pytest.raises(LoadFailed, match="not gemma4"):
        make_tokenizer(changed(model, model=kind))


def test_damaged_merges_are_told(model: GgufModel) -> None:
    """The library's words, no stack trace."""
    with pytest.raises(LoadFailed, match="tokenizer is damaged"):
        make_tokenizer(changed(model, merges=["nobody knows"]))


def test_answers_end_where_gemmas_do(model: GgufModel) -> None:
    """The file's own end, and the ends of a turn and of a call."""
    assert end_ids(model) == {1, 106, 50}
    assert end_ids(changed(model, eos_token_id=7, eot_token_id=None)) == {1, 7, 106, 50}


def test_template_is_the_files_or_gemmas(model: GgufModel) -> None:
    """A file without one speaks as Gemma 4 does."""
    without = {k: v for k, v in model.metadata.items() if k != "tokenizer.chat_template"}

    assert make_format(model) == FORMAT
    assert make_format(GgufModel("gemma4", without, {})).template == own_template()
    assert "<|turn>" in own_template()
