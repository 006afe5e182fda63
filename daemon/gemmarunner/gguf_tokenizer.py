"""Makes the tokenizer and the chat format that a GGUF file's metadata describes.

Gemma 4's tokenizer is a BPE over whole texts: a space is `▁`, bytes stand in for characters that
have no token, nothing is split first. Files give its tokens, their types and its merges; some
writers leave out the merges, which then follow from the order of the tokens. A tokenizer of another
make (nano's splits words first) comes whole under `tokenizer.huggingface.json`.
"""

from collections.abc import Callable, Sequence
from importlib import resources
from typing import TypeVar, cast

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

from gemmad.api.errors import LoadFailed
from gemmarunner.chat import Format
from gemmarunner.models.gguf_file import GgufModel

_AGAIN = "Pull the model again."
_KEY = "tokenizer.ggml."
HF_JSON = "tokenizer.huggingface.json"
TEMPLATE = "tokenizer.chat_template"
NO_TEMPLATE_NOTE = "The GGUF file brings no chat template: Gemma 4's own is used."
# Controls that writers mark as text, for chat parsers to see them.
SHOWN_CONTROLS = frozenset(
    (
        "<|channel>",
        "<channel|>",
        "<|tool_call>",
        "<tool_call|>",
        "<|tool_response>",
        "<tool_response|>",
        '<|"|>',
    )
)
_ENDS = ("<eos>", "<turn|>", "<|tool_response>")
_END_KEYS = ("eos_token_id", "eot_token_id", "eom_token_id")
_CONTROL, _USER_DEFINED = 3, 4
_T = TypeVar("_T")


def make_tokenizer(model: GgufModel) -> Tokenizer:
    """The tokenizer of a GGUF model: the ids of its own tokenizer.json for any text.

    Raises:
        LoadFailed: the metadata lack it, or describe another kind.
    """
    tokens = _strings(model, "tokens")
    if tokens is None:
        raise LoadFailed("The GGUF file holds no tokens.", fix=_AGAIN)
    given = model.metadata.get(HF_JSON)
    if isinstance(given, str):
        return _given(given, tokens)
    kind, pre = (model.metadata.get(_KEY + key) for key in ("model", "pre"))
    if kind != "gemma4" and (kind, pre) != ("llama", "gemma4"):
        raise LoadFailed(
            f"The GGUF file's tokenizer is {str(kind)[:40]!r} ({str(pre)[:40]!r}), not gemma4.",
            fix="Use a GGUF file of Gemma 4.",
        )
    return _built(model, tokens)


def make_format(model: GgufModel) -> Format:
    """The chat template of the file, or Gemma 4's own, and its first and last token."""
    template = model.metadata.get(TEMPLATE)
    return Format(
        template=template if isinstance(template, str) else own_template(),
        bos=_token(model, "bos_token_id", "<bos>"),
        eos=_token(model, "eos_token_id", "<eos>"),
    )


def end_ids(model: GgufModel) -> frozenset[int]:
    """The tokens that end an answer: those the file names, and what ends Gemma's turns."""
    tokens = _strings(model, "tokens") or []
    named = (model.metadata.get(_KEY + key) for key in _END_KEYS)
    found = {value for value in named if type(value) is int}
    return frozenset(found | {tokens.index(text) for text in _ENDS if text in tokens})


def own_template() -> str:
    """Gemma 4's chat template, as the built-in model has it."""
    place = resources.files("gemmamodelfiles") / "nano" / "target" / "chat_template.jinja"
    return place.read_text("utf-8")


def _given(text: str, tokens: Sequence[str]) -> Tokenizer:
    tokenizer = _checked(lambda: Tokenizer.from_str(text))
    vocab = tokenizer.get_vocab(with_added_tokens=True)
    if any(vocab.get(token) != id for id, token in enumerate(tokens)):
        raise LoadFailed(f"The GGUF file's {HF_JSON} has other tokens than its list.", fix=_AGAIN)
    return tokenizer


def _built(model: GgufModel, tokens: list[str]) -> Tokenizer:
    vocab = {token: id for id, token in enumerate(tokens)}
    written = _strings(model, "merges")
    pairs = _merges(vocab) if written is None else [_pair(merge) for merge in written]
    unknown = _token(model, "unknown_token_id", "<unk>")
    tokenizer = _checked(
        lambda: Tokenizer(
            models.BPE(vocab, pairs, unk_token=unknown, byte_fallback=True, fuse_unk=True)
        )
    )
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    _add_whole_tokens(tokenizer, model, tokens)
    return tokenizer


def _add_whole_tokens(tokenizer: Tokenizer, model: GgufModel, tokens: Sequence[str]) -> None:
    """Controls, and what the writer says is never cut, are found before anything is merged."""
    types = model.metadata.get(_KEY + "token_type")
    if types is None or isinstance(types, bool | int | float | str):
        types = []
    special, plain = [], []
    for token, kind in zip(tokens, types, strict=False):
        if kind == _CONTROL or token in SHOWN_CONTROLS:
            special.append(AddedToken(token, normalized=False, special=True))
        elif kind == _USER_DEFINED:
            plain.append(AddedToken(token, normalized=False, special=False))
    tokenizer.add_special_tokens(special)
    tokenizer.add_tokens(plain)


def _pair(merge: str) -> tuple[str, str]:
    left, _, right = merge.partition(" ")
    return left, right


def _merges(vocab: dict[str, int]) -> list[tuple[str, str]]:
    """The merges that lead to each token, earlier tokens first, longer halves first."""
    found = []
    for token, id in vocab.items():
        for cut in range(1, len(token)):
            left, right = token[:cut], token[cut:]
            if left in vocab and right in vocab:
                found.append((id, -len(left), -len(right), left, right))
    return [(left, right) for *_, left, right in sorted(found)]


def _token(model: GgufModel, key: str, default: str) -> str:
    """A token's text by the id under `key`."""
    id, tokens = model.metadata.get(_KEY + key), _strings(model, "tokens") or []
    return tokens[id] if type(id) is int and 0 <= id < len(tokens) else default


def _strings(model: GgufModel, key: str) -> list[str] | None:
    value = model.metadata.get(_KEY + key)
    texts = isinstance(value, list) and all(isinstance(item, str) for item in value[:1])
    return cast(list[str], value) if texts else None


def _checked(make: Callable[[], _T]) -> _T:
    try:
        return make()
    except Exception as error:  # the library raises nothing more precise
        raise LoadFailed(f"The GGUF file's tokenizer is damaged: {error}.", fix=_AGAIN) from error
