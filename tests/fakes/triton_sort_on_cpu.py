"""Makes Triton's sorts bearable in its interpreter: their reductions by xor, done by numpy.

The interpreter of Triton 3.6 knows no xor and falls back to one Python call an element.
"""

from typing import Any

import numpy as np
import triton.language as tl

from tests.fakes.triton_on_cpu import interpreter  # first of all, it turns the interpreter on

_apply = interpreter.ReduceOps.apply_impl


def _applied(self: Any, operands: Any) -> Any:
    if self.combine_fn is not tl.standard._xor_combine or self.axis is None:
        return _apply(self, operands)
    data = operands[0].handle.data
    out = np.bitwise_xor.reduce(data, axis=self.axis, keepdims=self.keep_dims)
    return self.to_tensor(out, operands[0].dtype)


interpreter.ReduceOps.apply_impl = _applied
