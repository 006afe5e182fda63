"""The settings by which residency decides."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rules:
    """Limits, times in seconds, and bytes that stay free."""

    max_loaded: int = 3
    max_queue: int = 512
    keep_alive_s: float = 300.0
    queue_s: float = 600.0  # a request has its pair by then, or an error
    load_s: float = 330.0  # a load has ended by then; its own deadline is a little earlier
    reserve: int | None = None  # of each memory; None: by its size
    may_attach: bool = True  # dropped drafters come back
