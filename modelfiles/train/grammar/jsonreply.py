"""Requests for JSON: extraction, objects from named values, lists, nesting, commands."""

import json
import re
from typing import Any, NamedTuple

from train.grammar import howto, values
from train.grammar.frames import Draw, bank, words
from train.grammar.noise import capital, typed
from train.grammar.recall import article
from train.grammar.slots import Pair, attached, joined, sentences

EXTRACT, DIRECT, ABOUT, LIST, LIST_KEY, NESTED, COMMAND, KEY_LISTS = (
    bank("json", n)
    for n in ("extract", "direct", "about", "list", "listkey", "nested", "command", "keys")
)
SCENES = (bank("json", "people"), bank("json", "shopping"))
KEYS, NOUNS = words("words", "keys"), values.NOUNS
OUTER = ("user", "person", "order", "data", "result", "item", "details", "entry", "meta", "info")


class Reply(NamedTuple):
    """A request for JSON and the value that answers it."""

    user: str
    value: Any
    thought: str


def request(draw: Draw) -> Reply:
    """Return any kind of request for JSON, answered."""
    roll = draw.random()
    if roll < 0.4:
        return _extraction(draw)
    if roll < 0.58:
        return _direct(draw)
    if roll < 0.73:
        return _natural(draw)
    if roll < 0.82:
        return _list(draw)
    return _nested(draw) if roll < 0.9 else _command(draw)


def text(value: Any) -> str:
    """Return the JSON text of an answer."""
    return json.dumps(value, ensure_ascii=False)


def pairs(draw: Draw, most: int = 4) -> list[Pair]:
    """Return one to `most` keys with values of mixed types; both obey the split."""
    count = draw.choose((1, 2, 2, 2, 3, 3, 4))
    found: dict[str, Any] = {}
    while len(found) < min(count, most):
        found.setdefault(values.free(draw, _key), _value(draw))
    return list(found.items())


def _key(draw: Draw) -> str:
    roll = draw.random()
    if roll < 0.55:
        return draw.choose(KEYS)
    if roll < 0.75:
        return draw.choose(NOUNS)
    if roll < 0.85:
        return f"{draw.choose(KEYS)}_{draw.choose(NOUNS)}"
    return values.nonsense(draw)


def _value(draw: Draw) -> Any:
    roll = draw.random()
    if roll < 0.62:
        return values.free(draw, values.phrase if draw.chance(0.3) else values.anything)
    if roll < 0.82:
        return values.typed_value(draw, "integer")
    return values.typed_value(draw, "number" if roll < 0.93 else "boolean")


def _extraction(draw: Draw) -> Reply:
    found = pairs(draw)
    stated = list(found)
    if len(stated) > 1 and draw.chance(0.35):
        draw.rng.shuffle(stated)
    if len(found) > 1 and draw.chance(0.12):
        found.pop()
    body = attached(draw, stated).lstrip(" ,:;") if draw.chance(0.25) else sentences(draw, stated)
    return _asked(draw, EXTRACT, body, dict(found))


def _direct(draw: Draw) -> Reply:
    found = pairs(draw)
    if draw.chance(0.5):
        frame = typed(draw, draw.pick(DIRECT))
        user = frame.replace("{s}", attached(draw, found, clear=True))
        return _reply(user, dict(found))
    return _asked(draw, ABOUT, sentences(draw, found, clear=True), dict(found))


def _natural(draw: Draw) -> Reply:
    frame = draw.pick(draw.choose(SCENES))
    filled = {key: _scene_value(draw, key) for key in re.findall(r"{(\w+)}", frame)}
    body = frame
    for key, value in filled.items():
        spoken = str(value)
        if key == "job" and "the {job}" not in frame:
            spoken = f"{article(spoken)} {spoken}"
        body = body.replace(f"{{{key}}}", spoken)
    body = body if frame.startswith("{") else capital(body)
    keys = list(filled)
    if draw.chance(0.4):
        draw.rng.shuffle(keys)
    if len(keys) > 1 and draw.chance(0.25):
        keys.pop()
    return _asked(draw, EXTRACT, body, {key: filled[key] for key in keys})


def _scene_value(draw: Draw, key: str) -> Any:
    match key:
        case "age":
            return 5 + draw.below(90)
        case "count":
            return 2 + draw.below(200)
        case "price":
            return draw.below(900) if draw.chance(0.5) else values.decimal(draw)
        case "item":
            return values.free(
                draw, lambda d: d.choose(NOUNS) + "s" if d.chance(0.5) else values.nonsense(d)
            )
        case _:
            return values.free(draw, getattr(values, key))


def _list(draw: Draw) -> Reply:
    numbers = draw.chance(0.25)
    count = 2 + draw.below(3)
    items: list[Any] = [
        values.typed_value(draw, "integer") if numbers else values.free(draw, values.anything)
        for _ in range(count)
    ]
    spoken = joined(draw, [str(item) for item in items])
    user = typed(draw, draw.pick(LIST)).replace("{v}", spoken)
    if not draw.chance(0.4):
        return _reply(user, items)
    key = values.free(draw, _key)
    frame = draw.pick(LIST_KEY).replace("{k}", key)
    return _reply(frame.replace("{l}", user.rstrip() if user[-1] in ".?!" else user), {key: items})


def _nested(draw: Draw) -> Reply:
    found = pairs(draw, 3)
    outer = draw.choose(OUTER) if draw.chance(0.5) else values.free(draw, _key)
    if outer in dict(found):
        return _nested(draw)
    reply = _asked(draw, NESTED, sentences(draw, found, clear=True), dict(found))
    value = {outer: reply.value}
    return _reply(reply.user.replace("{k}", outer), value)


def _command(draw: Draw) -> Reply:
    question = howto.question(draw)
    user = typed(draw, draw.pick(COMMAND)).replace("{q}", question.user)
    return _reply(user, {"command": question.command})


def _asked(draw: Draw, frames: Any, body: str, value: dict[str, Any]) -> Reply:
    frame = typed(draw, draw.pick(frames)).replace("\\n", "\n")
    if "{t} " in frame and body[-1] not in ".?!":
        body += "." if "\n" not in body else "\n"
    user = frame.replace("{keys}", _listed(draw, list(value))).replace("{t}", body)
    return _reply(user.replace("\n ", "\n"), value)


def _listed(draw: Draw, keys: list[str]) -> str:
    frame = draw.pick(KEY_LISTS)
    comma = ", ".join(keys)
    return (
        frame.replace("\\{{c}\\}", "{" + comma + "}")
        .replace("{a}", joined(draw, keys))
        .replace("{b}", ", ".join(f"`{key}`" for key in keys))
        .replace("{q}", joined(draw, [f'"{key}"' for key in keys]))
        .replace("{t}", joined(draw, [f"the {key}" for key in keys]))
        .replace("{c}", comma)
    )


def _reply(user: str, value: Any) -> Reply:
    return Reply(user, value, f"The user wants JSON. {_restated(value)}")


def _restated(value: Any) -> str:
    if isinstance(value, list):
        return f"The values are {', '.join(map(str, value))}."
    parts = []
    for key, item in value.items():
        if isinstance(item, dict):
            return f"Inside {key}: {_restated(item)}"
        plain = ", ".join(map(str, item)) if isinstance(item, list) else _plain(item)
        parts.append(f"{key} is {plain}")
    return f"The {', '.join(parts)}."


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
