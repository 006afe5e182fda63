"""Manifests that somebody bent: bytes changed at random, or a whole one with hostile content."""

import hashlib
import json
import random
from typing import Any

from tests.unit.store.hostile_texts import hostile_texts

_ODD: list[Any] = [
    None, True, -1, 0, 1.5, 1e308, 2**63, 2**64, 10**400, "", "x", "\0", "\ud800", [], {}, [[]],
    {"digest": "sha256:" + "0" * 64, "size": -1}, {"digest": "../../x", "size": 1}, "é" * 999,
]  # fmt: skip
_TEXTS = hostile_texts(300)


def forged(good: bytes, dice: random.Random) -> bytes:
    """One of many ways to bend it; those that keep it well formed have a right hash."""
    return dice.choice((_bits, _cut, _splice, _noise, _bent, _bent, _bent))(good, dice)


def _bits(good: bytes, dice: random.Random) -> bytes:
    data = bytearray(good)
    for _ in range(dice.choice((1, 1, 2, 9))):
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    return bytes(data)


def _cut(good: bytes, dice: random.Random) -> bytes:
    return good[: dice.randrange(len(good))] + b"\0" * dice.choice((0, 0, 4096))


def _splice(good: bytes, dice: random.Random) -> bytes:
    begin, end = sorted((dice.randrange(len(good)), dice.randrange(len(good))))
    at = dice.randrange(len(good))
    return good[:at] + good[begin:end] * dice.choice((1, 2, 30)) + good[at:]


def _noise(good: bytes, dice: random.Random) -> bytes:
    return dice.randbytes(dice.randrange(300))


def _bent(good: bytes, dice: random.Random) -> bytes:
    """Well formed and rightly hashed, with odd values at odd places."""
    body = json.loads(good)["manifest"]
    for _ in range(dice.choice((0, 1, 1, 2))):
        _bend(body, dice)
    text = json.dumps(body, ensure_ascii=dice.random() < 0.9).encode(errors="surrogatepass")
    hashed = hashlib.sha256(text).hexdigest().encode()
    return b'{"sha256":"' + hashed + b'","manifest":' + text + b"}"


def _bend(body: dict[str, Any], dice: random.Random) -> None:
    place: Any = body
    while True:
        keys = [*place] if isinstance(place, dict) else [*range(len(place))]
        if not keys:
            return
        key = dice.choice(keys)
        if isinstance(place[key], dict | list) and dice.random() < 0.7:
            place = place[key]
            continue
        break
    deed = dice.randrange(4)
    if deed == 0:
        del place[key]
    elif deed == 1 and isinstance(place, dict):
        place[dice.choice(_TEXTS)] = place[key]
    else:
        place[key] = dice.choice(_TEXTS) if deed == 2 else dice.choice(_ODD)
