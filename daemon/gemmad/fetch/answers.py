"""What an answer to a request for a range means: pure, from its status and headers."""

import email.utils
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from gemmad.fetch.trouble import Transient

_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)")
_SHA256 = re.compile(r"[0-9a-f]{64}")
REDIRECTS = (301, 302, 303, 307, 308)
DENIED = (401, 403, 451)
LATER = (408, 425, 429, 500, 502, 503, 504, 507, 509, 520, 521, 522, 523, 524, 529)

Headers = Mapping[str, str]  # names in lower case


class Meaning(Enum):
    """What to do with an answer."""

    RANGE = "range"  # bytes from where they were asked for; perhaps fewer
    WHOLE = "whole"  # the file from its beginning: the server knows no ranges
    REDIRECT = "redirect"
    DENIED = "denied"
    REFUSED = "refused"
    OTHER_FILE = "other file"


@dataclass(frozen=True, slots=True)
class Asked:
    """The bytes [start, end) of a file that has `size`."""

    start: int
    end: int
    size: int

    @property
    def header(self) -> str:
        """For the request."""
        return f"bytes={self.start}-{self.end - 1}"


@dataclass(frozen=True, slots=True)
class Reading:
    """An answer understood; `length` bytes follow, None where only the end will tell."""

    meaning: Meaning
    length: int | None = None


def read_answer(status: int, headers: Headers, asked: Asked) -> Reading:
    """What the answer means.

    Raises:
        Transient: it is of no use, and the next may be.
    """
    if status in REDIRECTS:
        return Reading(Meaning.REDIRECT)
    if status in DENIED:
        return Reading(Meaning.DENIED)
    if status in LATER:
        raise Transient(f"HTTP {status}", wait_s=_retry_after(headers))
    if status not in (200, 206):
        return Reading(Meaning.OTHER_FILE if status == 416 else Meaning.REFUSED)
    if headers.get("content-encoding", "identity").lower() not in ("identity", ""):
        raise Transient("the server packed the bytes, which was not asked for")
    return _range(headers, asked) if status == 206 else _whole(headers, asked)


def _whole(headers: Headers, asked: Asked) -> Reading:
    length = _number(headers.get("content-length"))
    if length not in (None, asked.size):
        return Reading(Meaning.OTHER_FILE, length)
    return Reading(Meaning.WHOLE, length)


def _range(headers: Headers, asked: Asked) -> Reading:
    match = _CONTENT_RANGE.fullmatch(headers.get("content-range", ""))
    if match is None:
        raise Transient("the server does not say which bytes it sends")
    start, end = int(match[1]), int(match[2]) + 1
    if match[3] not in ("*", str(asked.size)):
        return Reading(Meaning.OTHER_FILE, int(match[3]))
    length = _number(headers.get("content-length"))
    if start != asked.start or not start < end <= asked.end or length not in (None, end - start):
        raise Transient("the server sends other bytes than were asked for")
    return Reading(Meaning.RANGE, end - start)


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 19 else None


def _retry_after(headers: Headers) -> float | None:
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        when = email.utils.parsedate_to_datetime(text)
        date = email.utils.parsedate_to_datetime(headers.get("date", ""))
    except ValueError:
        return None
    return max(0.0, (when - date).total_seconds()) if when.tzinfo and date.tzinfo else None


def etag(headers: Headers) -> str | None:
    """The validator of the content, without the marks of weakness and packing."""
    return (headers.get("etag") or "").removeprefix("W/").strip('"') or None


def linked_sha256(headers: Headers) -> str | None:
    """The SHA-256 that a hub's redirect gives for the file behind it."""
    text = (headers.get("x-linked-etag") or "").strip('"')
    return text if _SHA256.fullmatch(text) else None


def linked_size(headers: Headers) -> int | None:
    """The size that a hub's redirect gives for the file behind it."""
    return _number(headers.get("x-linked-size"))
