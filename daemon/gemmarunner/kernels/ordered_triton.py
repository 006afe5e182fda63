"""Numbers and their places packed into integers, so that one sort orders both (Triton)."""

import triton
import triton.language as tl


@triton.jit
def packed(values, index):  # type: ignore[no-untyped-def]
    """int64 that grow with `values` (f32) and, among equals, fall with `index` (int32, >= 0)."""
    bits = tl.where(values == 0, 0.0, values).to(tl.int32, bitcast=True)  # minus zero is zero
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return (ordered.to(tl.int64) << 32) | (0x7FFFFFFF - index).to(tl.int64)


@triton.jit
def unpacked_index(keys):  # type: ignore[no-untyped-def]
    """The places in `keys`, int32."""
    return 0x7FFFFFFF - keys.to(tl.int32)


@triton.jit
def unpacked_value(keys):  # type: ignore[no-untyped-def]
    """The numbers in `keys`, f32."""
    ordered = (keys >> 32).to(tl.int32)
    return (ordered ^ ((ordered >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)
