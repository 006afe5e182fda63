"""Finds the compiled library, or says why there is none; its functions with their types.

The library is optional: a machine without a C compiler installs everything else, and torch's own
operators run instead, more slowly.
"""

import ctypes
from ctypes import c_char_p, c_int, c_int64, c_void_p
from functools import cache
from pathlib import Path

from gemmarunner.native.stamp import stamp

_HERE = Path(__file__).parent
_NAMES = "_kernels*.so"

_FUNCTIONS = {
    "gm_isa_name": (c_char_p, ()),
    "gm_stamp": (c_char_p, ()),
    "gm_packed_bytes": (c_int64, (c_int, c_int, c_int)),
    "gm_pack": (None, (c_int, c_int, c_int, c_void_p, c_void_p, c_void_p, c_int)),
    "gm_linear": (c_int, (c_void_p, c_void_p, c_int, c_void_p, c_int)),
    "gm_layers": (c_int, (c_void_p, c_int, c_void_p, c_void_p, c_int)),
}


class Matrix(ctypes.Structure):
    """`gm_matrix` of src/matrix.h."""

    _fields_ = (
        ("kind", ctypes.c_int32),
        ("rows", ctypes.c_int32),
        ("columns", ctypes.c_int32),
        ("data", c_void_p),
        ("below", c_void_p),
    )


_off = ""  # why nothing of it is used in this process


def library() -> ctypes.CDLL | None:
    """The library, if it was built and this processor has kernels in it."""
    found = _off or _load()
    return found if isinstance(found, ctypes.CDLL) else None


def switch_off(why: str) -> None:
    """There is no library for this process from now on; before anything was multiplied by it."""
    global _off
    _off = f"no native kernels: {why}"


def status() -> str:
    """What runs here, for a person: the kernels' name, or why there are none."""
    found = _off or _load()
    return found if isinstance(found, str) else f"native kernels for {_name(found)}"


@cache
def _load() -> ctypes.CDLL | str:
    files = sorted(_HERE.glob(_NAMES))
    if not files:
        return "no native kernels: no C compiler was there when the package was installed"
    try:
        loaded = ctypes.CDLL(str(files[0]))
        for name, (result, arguments) in _FUNCTIONS.items():
            function = getattr(loaded, name)
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError) as error:
        return f"no native kernels: {error}"
    if _is_stale(loaded.gm_stamp().decode()):
        return f"no native kernels: {files[0].name} was built of other sources; install again"
    return loaded if _name(loaded) else "no native kernels: they need an x86 CPU with AVX2"


def _is_stale(built_of: str) -> bool:
    """Whether calls might not mean what they say; a build by hand has no stamp and is trusted."""
    return bool(built_of and (here := stamp()) and built_of != here)


def _name(loaded: ctypes.CDLL) -> str:
    name: bytes = loaded.gm_isa_name()
    return name.decode()
