"""Lets Triton kernels run on the CPU, in Triton's own interpreter; import it before any kernel.

The interpreter of Triton 3.6 stumbles over two things that are put right here: loop bounds known
only at run time with numpy 2.4, and products of bf16, which numpy has not.
"""

import os
from typing import Any

os.environ["TRITON_INTERPRET"] = "1"

import numpy as np
import triton.language as tl
from triton.runtime import interpreter

_patch = interpreter._patch_lang_tensor
_dot = interpreter.InterpreterBuilder.create_dot


def _patched(tensor: Any, *rest: Any) -> Any:
    scope = _patch(tensor, *rest)
    tensor.__index__ = lambda self: int(self.handle.data.item())
    return scope


def _widened(handle: Any) -> Any:
    """The operand in float32 if it is bf16, which the interpreter keeps as bit patterns."""
    if handle.dtype.scalar != tl.bfloat16:
        return handle
    data = (handle.data.astype(np.uint32) << 16).view(np.float32)
    return interpreter.TensorHandle(data, tl.float32)


def _dotted(self: Any, a: Any, b: Any, *rest: Any) -> Any:
    return _dot(self, _widened(a), _widened(b), *rest)


interpreter._patch_lang_tensor = _patched
interpreter.InterpreterBuilder.create_dot = _dotted
