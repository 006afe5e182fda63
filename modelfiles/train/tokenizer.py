"""Trains nano's tokenizer: a byte-fallback BPE of 8,192 entries, control tokens at Gemma 4's ids.

ids 0-3 pad eos bos unk, 46-52 tools and the quote, 98 think, 100-101 channel, 105-106 turn;
ids 4-6 media placeholders, the rest up to 106 reserved, 107-362 the bytes; merges follow.
"""

import argparse
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from random import Random

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)

from train.corpus import load_documents
from train.grammar.mix import sample

VOCABULARY = 8192
RESERVED = 107
CONTROL = {
    0: "<pad>",
    1: "<eos>",
    2: "<bos>",
    3: "<unk>",
    4: "<|image|>",
    5: "<|audio|>",
    6: "<|video|>",
    46: "<|tool>",
    47: "<tool|>",
    48: "<|tool_call>",
    49: "<tool_call|>",
    50: "<|tool_response>",
    51: "<tool_response|>",
    52: '<|"|>',
    98: "<|think|>",
    100: "<|channel>",
    101: "<channel|>",
    105: "<|turn>",
    106: "<turn|>",
}
NAMES = {
    "sot_token": 105,
    "eot_token": 106,
    "soc_token": 100,
    "eoc_token": 101,
    "think_token": 98,
    "std_token": 46,
    "etd_token": 47,
    "stc_token": 48,
    "etc_token": 49,
    "str_token": 50,
    "etr_token": 51,
    "escape_token": 52,
    "image_token": 4,
    "audio_token": 5,
    "video_token": 6,
}
CHARACTERS = 12_000_000
SPACE = "▁"
# A space is a token of its own, so that a word has the same tokens after a space, in quotes and in
# a call: with the space inside the word, the model had to learn how to copy each word anew.
# Each digit and each line break stands alone; `createUser` is two words.
LETTERS = r"[\p{Lu}\p{Lt}]?[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[\p{Lu}\p{Lt}]+"
WORDS = rf"{LETTERS}|\p{{N}}|\n|[^\s\p{{L}}\p{{M}}\p{{N}}{SPACE}]+|{SPACE}+"


def special_tokens() -> list[str]:
    """Return the control tokens in the order of their ids, reserved ones in between."""
    return [CONTROL.get(i, f"<unused{i}>") for i in range(RESERVED)]


def train(general: Iterable[str], grammar: Iterable[str]) -> Tokenizer:
    """Return a tokenizer whose merges come from both texts."""
    tokenizer = _built({}, [])
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - 256,  # the byte tokens join afterwards
        special_tokens=special_tokens(),
        max_token_length=16,
        limit_alphabet=300,
        show_progress=False,
    )
    tokenizer.train_from_iterator(_pieces(general, grammar), trainer)
    learnt = json.loads(tokenizer.to_str())["model"]
    merges = [(first, second) for first, second in learnt["merges"]]
    return _built(_vocabulary(learnt["vocab"]), merges)


def _vocabulary(learnt: dict[str, int]) -> dict[str, int]:
    ordered = sorted(learnt, key=lambda token: learnt[token])[RESERVED:]
    tokens = special_tokens() + [f"<0x{value:02X}>" for value in range(256)] + ordered
    return {token: index for index, token in enumerate(tokens)}


def _built(vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> Tokenizer:
    tokenizer = Tokenizer(
        models.BPE(vocab=vocabulary, merges=merges, unk_token=CONTROL[3], byte_fallback=True)
    )
    tokenizer.normalizer = normalizers.Replace(" ", SPACE)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(WORDS), "isolated")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    if vocabulary:
        tokenizer.add_special_tokens(
            [AddedToken(token, special=True, normalized=False) for token in special_tokens()]
        )
    return tokenizer


def _pieces(general: Iterable[str], grammar: Iterable[str]) -> Iterator[str]:
    control = re.compile("|".join(map(re.escape, CONTROL.values())))
    for text in grammar:
        yield from control.split(text)
    yield from general


def write(tokenizer: Tokenizer, out: Path) -> None:
    """Write the tokenizer's files, as transformers and this program's runner read them."""
    out.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(out / "tokenizer.json"))
    named = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"}
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": 131072,
        "clean_up_tokenization_spaces": False,
        "add_bos_token": False,
        "padding_side": "left",
        **named,
        **{name: CONTROL[token] for name, token in NAMES.items()},
    }
    _write_json(out / "tokenizer_config.json", config)
    _write_json(out / "special_tokens_map.json", named)


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def grammar_texts(seed: int, characters: int) -> Iterator[str]:
    """Yield conversations until `characters` of text are out."""
    rng = Random(seed)
    while characters > 0:
        text = sample(rng).text
        characters -= len(text)
        yield text


def general_texts(documents: list[str], seed: int, characters: int) -> Iterator[str]:
    """Yield documents in random order, cut to 4,000 characters, until `characters` are out."""
    order = list(range(len(documents)))
    Random(seed).shuffle(order)
    for index in order:
        if characters <= 0:
            return
        text = documents[index][:4000]
        characters -= len(text)
        yield text


def train_tokenizer(general: Path, out: Path, seed: int, characters: int = CHARACTERS) -> None:
    """Train on half conversations, half general English, and write the files to `out`.

    Raises:
        FileNotFoundError: there is no such file of general English.
    """
    documents = general_texts(load_documents(general), seed, characters)
    write(train(documents, grammar_texts(seed, characters)), out)


def main() -> None:
    """Train a tokenizer from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--general", type=Path, required=True, help="documents as .txt.xz")
    parser.add_argument("--out", type=Path, required=True, help="folder for tokenizer.json")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    train_tokenizer(options.general, options.out, options.seed)


if __name__ == "__main__":
    main()
