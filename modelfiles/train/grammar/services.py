"""Tools as people really declare them (weather, timers, mail), with names and keys varied."""

from typing import Any, NamedTuple

from train.grammar import values
from train.grammar.frames import Bank, Draw, expand, sections, words
from train.grammar.noise import typed
from train.grammar.slots import QUOTES
from train.grammar.toolkit import Request, Tool, declared

ROOMS, CURRENCIES = words("services", "rooms"), words("services", "currencies")


class Parameter(NamedTuple):
    """One parameter: names it may have, its JSON type, where values come from, descriptions."""

    names: tuple[str, ...]
    kind: str
    maker: str
    about: tuple[str, ...]
    enum: tuple[str, ...]


class Service(NamedTuple):
    """A tool with variants of its name and description, and the ways to ask for it."""

    section: str
    names: tuple[str, ...]
    about: tuple[str, ...]
    parameters: tuple[Parameter, ...]
    frames: Bank


def _parsed(section: str, lines: list[str]) -> Service:
    names, about = (part.strip() for part in _halves(lines[0]))
    asks = [line[2:] for line in lines if line.startswith("> ")]
    middle = [line for line in lines[1:] if not line.startswith("> ")]
    return Service(
        section,
        expand(names),
        expand(about),
        tuple(map(_parameter, middle)),
        Bank(f"services.{section}", asks),
    )


def _halves(line: str) -> tuple[str, str]:
    head, _, tail = line.partition(" | ")
    return head, tail


def _parameter(line: str) -> Parameter:
    names, kind, maker, about = (part.strip() for part in line.split(" | ", 3))
    enum: tuple[str, ...] = ()
    if kind.startswith("enum "):
        kind, *options = kind.split()
        enum = tuple(options)
    return Parameter(tuple(names.split()), kind, maker, expand(about), enum)


SERVICES = tuple(
    _parsed(name, lines)
    for name, lines in sections("services").items()
    if name not in ("rooms", "currencies")
)

# Services whose requests could be meant for each other; never declared together.
ALIKE = (
    {"add", "multiply", "calculator"},
    {"search", "user", "stock", "file", "weather", "translate"},
    {"note", "todo", "shopping", "calendar"},
    {"call", "user", "message", "email"},
    {"flight", "train", "distance", "hotel"},
    {"timer", "alarm", "clock", "time"},
    {"lights", "thermostat"},
    {"music", "search", "file"},
)


def apart(first: Service, second: Service) -> bool:
    """Return whether a request for one service cannot be meant for the other."""
    pair = {first.section, second.section}
    return len(pair) == 2 and not any(pair <= group for group in ALIKE)


def request(draw: Draw, service: Service | None = None) -> Request:
    """Return a request for a service, its tool declared; now and then two calls at once."""
    service = service or draw.choose(SERVICES)
    frame = draw.pick(service.frames)
    keys = _keys(draw, service)
    tool = _tool(draw, service, keys)
    made = {
        p: _value(draw, service.parameters[p]) for p in range(len(keys)) if f"{{{p + 1}}}" in frame
    }
    name = tool["function"]["name"]
    calls = [(name, {keys[p]: value for p, value in made.items()})]
    shown = {p: _shown(draw, service.parameters[p], value) for p, value in made.items()}
    if len(made) == 1 and len(keys) <= 2 and draw.chance(0.12):
        only = next(iter(made))
        second = _value(draw, service.parameters[only])
        if second != made[only] and service.parameters[only].maker in ("city", "name"):
            calls.append((name, {keys[only]: second}))
            shown[only] += f" and {second}" if draw.chance(0.8) else f" and in {second}"
    user = typed(draw, frame)
    for index, text in shown.items():
        user = user.replace(f"{{{index + 1}}}", text)
    return Request(user, [tool], calls, f"use {name}")


def _keys(draw: Draw, service: Service) -> list[str]:
    keys: list[str] = []
    for parameter in service.parameters:
        options = [n for n in parameter.names if n not in keys]
        keys.append(options[0] if draw.chance(0.4) else draw.choose(options))
    return keys


def _tool(draw: Draw, service: Service, keys: list[str]) -> Tool:
    properties: dict[str, Any] = {}
    required = []
    for key, parameter in zip(keys, service.parameters, strict=True):
        schema: dict[str, Any] = {"type": "string" if parameter.enum else parameter.kind}
        if draw.chance(0.8):
            schema["description"] = draw.choose(parameter.about)
        if parameter.enum:
            schema["enum"] = list(parameter.enum)
        properties[key] = schema
        if not parameter.maker.startswith("?"):
            required.append(key)
    allowed = [n for n in service.names if values.held(n) == draw.hold_values] or service.names
    name = allowed[0] if draw.chance(0.3) else draw.choose(allowed)
    return declared(name, draw.choose(service.about), properties, required)


def _value(draw: Draw, parameter: Parameter) -> Any:
    maker = parameter.maker.removeprefix("?")
    if parameter.enum:
        return draw.choose(parameter.enum)
    if "-" in maker:
        low, high = maker.split("-")
        if parameter.kind == "integer":
            return int(low) + draw.below(int(high) - int(low) + 1)
        return _amount(draw, float(low), float(high))
    if maker == "clock":
        return f"{draw.below(24):02d}:{draw.choose(('00', '15', '30', '45', '05', '20'))}"
    if maker == "sum":
        sign = draw.choose(("+", "-", "*", "/", " + ", " - ", " * "))
        return f"{draw.below(1000)}{sign}{draw.below(1000)}"
    return values.free(draw, MAKERS[maker])


def _amount(draw: Draw, low: float, high: float) -> float | int:
    value = round(low + draw.random() * (high - low), 1)
    return int(value) if draw.chance(0.5) else value


def _shown(draw: Draw, parameter: Parameter, value: Any) -> str:
    quoted = {"phrase": 0.7, "proper": 0.2, "path": 0.1}.get(
        parameter.maker.removeprefix("?"), 0.03
    )
    if isinstance(value, str) and not parameter.enum and draw.chance(quoted):
        return draw.choose(QUOTES).format(value)
    return str(value)


def _path(draw: Draw) -> str:
    extension = draw.choose(("txt", "md", "json", "log", "csv", "py"))
    folder = f"{values.nonsense(draw)}/" if draw.chance(0.3) else ""
    return f"{folder}{values.nonsense(draw)}.{extension}"


MAKERS = {
    "city": values.city,
    "name": values.name,
    "phrase": values.phrase,
    "proper": values.proper,
    "language": values.language,
    "item": values.item,
    "noun": lambda draw: draw.choose(values.NOUNS) if draw.chance(0.5) else values.nonsense(draw),
    "weekday": lambda draw: (
        draw.choose(values.LISTS["weekdays"]) if draw.chance(0.7) else values.proper(draw)
    ),
    "room": lambda draw: draw.choose(ROOMS) if draw.chance(0.6) else values.nonsense(draw),
    "currency": lambda draw: draw.choose(CURRENCIES) if draw.chance(0.7) else values.nonsense(draw),
    "path": _path,
}
