"""A grammar, a tokenizer, a corpus and an evaluation small enough to try the training on."""

import lzma
import random
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers

from train.conversation import Conversation, Item, Segment, Verdict

CONTROL = {
    0: "<pad>",
    1: "<eos>",
    2: "<bos>",
    3: "<unk>",
    50: "<|tool_response>",
    98: "<|think|>",
    100: "<|channel>",
    101: "<channel|>",
    105: "<|turn>",
    106: "<turn|>",
}
CHARACTERS = "\n▁" + "".join(map(chr, range(33, 127)))
SKILLS = ("echo", "count")
WORDS = ("red", "blue", "green", "nine", "seven")


def tokenizer() -> Tokenizer:
    """Return one token a character, with Gemma 4's control tokens at their ids."""
    vocab = {CONTROL.get(i, f"<unused{i}>"): i for i in range(107)}
    vocab |= {character: 107 + i for i, character in enumerate(CHARACTERS)}
    made = Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token="<unk>"))
    made.normalizer = normalizers.Replace(" ", "▁")
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse()])
    made.add_special_tokens([AddedToken(text, normalized=False) for text in CONTROL.values()])
    return made


def write_inputs(directory: Path) -> tuple[Path, Path]:
    """Write a tokenizer directory and a corpus; returns both paths."""
    home, corpus = directory / "tokenizer", directory / "general.txt.xz"
    home.mkdir(parents=True)
    tokenizer().save(str(home / "tokenizer.json"))
    texts = [f"Plain English number {i}. " * (i % 30 + 1) for i in range(200)]
    corpus.write_bytes(lzma.compress("\x00".join(texts).encode()))
    return home, corpus


def _head(words: list[str]) -> str:
    return f"<bos><|turn>user\nSay {' '.join(words)}.<turn|>\n<|turn>model\n"


def sample(rng: random.Random) -> Conversation:
    """Return one turn that repeats some words."""
    words = rng.choices(WORDS, k=rng.randint(1, 6))
    answer = " ".join(words) + "<turn|>"
    return Conversation((Segment(_head(words), 0.1), Segment(answer, 1.0), Segment("\n", 0.1)))


def items(skill: str, split: str, count: int, seed: int) -> list[Item]:
    """Return prompts to repeat words."""
    rng = random.Random(f"{skill}{split}{seed}")
    drawn = [rng.choices(WORDS, k=3) for _ in range(count)]
    return [Item(skill, _head(words), {"says": " ".join(words)}, think=False) for words in drawn]


def judge(item: Item, answer: str) -> Verdict:
    """Tell whether the words came back."""
    expected: Any = item.expected["says"]
    return Verdict(expected in answer, "<|channel>" not in answer, answer.endswith("<turn|>"))
