"""Whether what is still to come fits on the disk; pure."""

from gemmad.api.errors import WillNotFit

_RESERVE_SHARE = 16
_RESERVE_MOST = 1 << 30
_UNITS = (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10))


def require_space(remaining: int, free: int) -> None:
    """`remaining` bytes fit into `free` ones and leave the machine room to work.

    The reserve is a share of what comes, so that a small model fits on a small disk.

    Raises:
        WillNotFit: they do not; the message has both numbers.
    """
    need = remaining + min(_RESERVE_MOST, remaining // _RESERVE_SHARE)
    if remaining and need > free:
        raise WillNotFit(
            f"The disk of the store is too small: {need} bytes ({size_text(need)}) are needed, "
            f"{free} ({size_text(free)}) are free.",
            fix="Free some space (gemma gc, gemma rm), or set GEMMA_HOME on a larger disk.",
        )


def size_text(count: int) -> str:
    """A number of bytes as people write it."""
    for unit, factor in _UNITS:
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count} B"
