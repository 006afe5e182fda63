"""Strings that somebody who wants out of a directory would send as a name, a digest or a file."""

import itertools
import random

_SEEDS = [
    "..", ".", "", "/", "//", "\\", "~", "~root", "$HOME", "%00", "\0", "\n", "\r\n", " ", "\t",
    "../..", "..\\..", "../../../../etc/passwd", "/etc/passwd", "//etc/passwd", "file:///etc/passwd",
    "C:\\Windows\\x", "C:x", "c:/x", "\\\\server\\share\\x", "\\\\?\\C:\\x", "\\\\.\\pipe\\x",
    "CON", "nul", "aux.txt", "com1", "LPT9.json", "a.", "a..", "a ", " a", ".hidden", "-rf", "--",
    "%2e%2e", "%2e%2e%2f", "..%2f", "%252e%252e", "..%c0%af", "%c0%ae%c0%ae", "..;/", "..%00",
    "．．", "․․", "‥", "．．／", "／", "∕", "⧸", "a\u202eb", "\ufeff", "\u200b", "é", "ａ",
    "e\u0301", "𝕒",
    "ı", "K", "ß", "\ud800", "a\0b", "a\nb", "*", "?", "|", "<x>", '"', "'", ";", "`id`", "$(id)",
    "blobs/sha256", ".ingest", ".ingest.json", "FORMAT", ".FORMAT.new", "latest.json", "a.json",
    "manifests", "ingest", "quarantine", "sha256:", "sha256-", "SHA256:" + "0" * 64,
    "sha256:" + "0" * 63, "sha256:" + "0" * 65, "sha256:" + "A" * 64, "sha256:" + "０" * 64,
    "sha256:" + "../" * 21 + "x", "sha512:" + "0" * 64, "sha256:" + "0" * 64 + "/../x",
    "sha256:" + "0" * 64 + "\n", "sha256:" + "0" * 62 + "..", "hf.co", "hf.co/..", "hf.co/a/..",
    "hf.co/a/b/../../..", "evil.com/a/b", "x" * 81, "x" * 256, "x/" * 2000 + "x", "../" * 500 + "x",
    "planted", "planted/x", "planted/../x", "a/planted", "model-00001-of-00002.safetensors/..",
]  # fmt: skip
_FRAMES = [
    "{}", "a/{}", "{}/a", "a:{}", "{}:latest", "a/{}/b", "{}/..", "../{}", "/{}", "{}.json", "{}/",
    "sha256:{}", "hf.co/a/{}", "hf.co/{}/b", "{}\0", "{}%2f..", "./{}", "C:{}", "{}.safetensors",
]  # fmt: skip


def hostile_texts(number: int) -> list[str]:
    """So many different ones, the same every time."""
    every = [*dict.fromkeys(frame.format(seed) for frame in _FRAMES for seed in _SEEDS)]
    dice = random.Random(7)
    while len(every) < number:  # and mixtures
        every.append("".join(dice.choice(_SEEDS) for _ in range(3)))
    plain, framed = every[: len(_SEEDS)], every[len(_SEEDS) :]
    dice.shuffle(framed)
    return [*itertools.chain(plain, framed)][:number]
