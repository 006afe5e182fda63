"""What a runner's process takes beside any model: constants, measured once for each kind of device.

kind | device_bytes | host_bytes | measured
cuda | the context, libraries, kernels, segments half full | an idle runner that has used the GPU
cpu  | -            | a runner that has imported all it needs and run once
Kinds that nobody has measured yet take the numbers of the nearest one, and say so.
"""

from typing import NamedTuple

from gemmad.memory.readings import DeviceKind

MIB = 1 << 20
TOKEN_BYTES = 700  # of each token of the vocabulary, in the tokenizer's tables on the host


class Runtime(NamedTuple):
    """Bytes beside the model's."""

    device_bytes: int
    host_bytes: int
    graph_bytes: int = 0  # of each captured round: what the driver keeps of it
    layer_bytes: int = 0  # of each captured round and layer of the pair
    measured: str = ""  # where; empty: not measured


RUNTIMES: dict[DeviceKind, Runtime] = {
    "cuda": Runtime(800 * MIB, 1400 * MIB, 0, 16 << 10, measured="H200, torch 2.11: all shapes"),
    "rocm": Runtime(800 * MIB, 1400 * MIB, 0, 16 << 10),
    "mps": Runtime(0, 500 * MIB),
    "cpu": Runtime(0, 173 * MIB, measured="x86, 2 cores, torch 2.13: nano at 4k to 32k, E2B"),
}
# A CPU with native kernels: TorchScript compiles no layers there.
NATIVE = Runtime(0, 146 * MIB, measured="x86, 2 cores, torch 2.13: nano, E2B")
