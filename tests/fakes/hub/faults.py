"""The ways in which a hub misbehaves: what a fault does, and to which requests it happens."""

from dataclasses import dataclass, field
from fnmatch import fnmatch
from typing import Any, Literal

Kind = Literal[
    "refuse",  # close the connection without an answer
    "status",  # answer `status`, with `headers` (`Retry-After`, `X-Error-Code`)
    "redirect",  # answer 302 to `location`
    "redirect-loop",  # answer 302 to the same URL with a counter
    "reset",  # RST after `at` bytes of the body
    "truncate",  # close in good order after `at` bytes of the body
    "stall",  # send `at` bytes of the body, then nothing for `seconds`
    "drip",  # one byte at a time, `seconds` between two
    "slow",  # `rate` bytes a second
    "ignore-range",  # 200 and the whole file
    "wrong-range",  # 206 whose Content-Range is not what was asked for
    "short-range",  # 206 with half of what was asked for, and it says so
    "etag",  # another ETag
    "size",  # another size of the whole in Content-Range
    "flip",  # bit 0 of byte `at` of the file is wrong
    "swap",  # the bytes of another range, as long as the one asked for
    "other-file",  # bytes of another file of the same size
    "gzip-bomb",  # `size` zeros, packed to a thousandth
    "endless-json",  # an array that never ends
    "headers",  # `count` header lines
]


@dataclass(slots=True)
class Fault:
    """Happens to requests that match, `after` the first ones, `times` times (None: always)."""

    kind: Kind
    path: str = "*"  # pattern of the file's name, or of the URL's path
    where: Literal["hub", "cdn", "any"] = "any"
    method: str | None = None
    times: int | None = 1
    after: int = 0
    at: int = 0
    seconds: float = 60.0
    rate: int = 1 << 20
    status: int = 503
    headers: dict[str, str] = field(default_factory=dict)
    location: str = ""
    size: int = 1 << 30
    count: int = 100_000
    data: dict[str, Any] | None = None  # JSON body of `status`
    body: bytes | None = None  # instead of `data`, as it is
    whole: bool = False  # besides, as `ignore-range`
    happened: int = 0

    def strikes(self, where: str, method: str, path: str, name: str) -> bool:
        """Whether it happens to this request; counts both the requests and what happened."""
        if self.where not in (where, "any") or self.method not in (method, None):
            return False
        if not (fnmatch(name, self.path) or fnmatch(path, self.path)):
            return False
        if self.after > 0:
            self.after -= 1
            return False
        if self.times is not None and self.happened >= self.times:
            return False
        self.happened += 1
        return True
