"""Reads request bodies: size and time bounded, and JSON without tricks."""

import asyncio
import json
from typing import Any, NoReturn, TypeVar

import msgspec
from aiohttp import web

from gemmad.api.errors import BadRequest, TooLarge, TooSlow

CONTROL_BYTES = 64 << 10
CHAT_BYTES = 64 << 20
DEADLINE_S = 30.0
_INLINE_BYTES = 256 << 10  # larger bodies are parsed in a thread

T = TypeVar("T")


async def read_json(request: web.Request, kind: type[T], limit: int = CONTROL_BYTES) -> T:
    """The body as `kind`.

    Raises:
        BadRequest: it is missing, malformed, too large or too slow; the message names the field.
    """
    body = await _read(request, limit)
    if len(body) > _INLINE_BYTES:
        return await asyncio.to_thread(decode, body, kind)
    return decode(body, kind)


async def _read(request: web.Request, limit: int) -> bytes:
    if (request.content_length or 0) > limit:
        raise _too_large(limit)
    body = bytearray()
    try:
        async with asyncio.timeout(DEADLINE_S):
            async for chunk in request.content.iter_any():
                body += chunk
                if len(body) > limit:
                    raise _too_large(limit)
    except TimeoutError:
        raise TooSlow(f"The body did not arrive within {DEADLINE_S:.0f} s.") from None
    return bytes(body)


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"The body is larger than {limit} bytes.", fix="Send less.")


def decode(body: bytes, kind: type[T]) -> T:
    """JSON as `kind`. NaN, duplicate keys, lone surrogates and bottomless nesting are refused.

    Raises:
        BadRequest: the body is not such JSON; the message says where.
    """
    if not body.strip():
        raise BadRequest("The request has no body.", fix='Send JSON, e.g. {"model": "nano"}.')
    try:
        value = msgspec.json.decode(body, type=kind)
        # msgspec takes the last of two equal keys, which another reader might see differently.
        json.loads(body, object_pairs_hook=_unique, parse_int=_skip, parse_float=_skip)
    except RecursionError:
        raise BadRequest("The JSON is nested too deeply.") from None
    except msgspec.ValidationError as error:
        raise BadRequest(f"A field is wrong: {error}.", fix="See the API's description.") from None
    except (msgspec.DecodeError, ValueError) as error:
        raise BadRequest(f"The body is not JSON: {error}.") from None
    return value


def _unique(pairs: list[tuple[str, Any]]) -> None:
    if len({key for key, _ in pairs}) != len(pairs):
        _refuse_duplicate([key for key, _ in pairs])


def _refuse_duplicate(keys: list[str]) -> NoReturn:
    twice = next(key for key in keys if keys.count(key) > 1)
    raise ValueError(f"the key {twice[:60]!r} comes twice")


def _skip(_text: str) -> int:
    return 0  # numbers were read by msgspec; Python's int() would refuse 5,000 digits
