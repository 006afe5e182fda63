"""Machines as a probe would read them."""

from gemmad.core import ByteCount
from gemmad.memory.host import host_device
from gemmad.memory.readings import Device, Host, Machine


def machine_of(memory: int, *gpus: int, note: str = "") -> Machine:
    """A host with GPUs of so many bytes, all of them free; `note`: why the GPUs are of no use."""
    host = Host(ByteCount(memory), ByteCount(memory))
    devices = [
        Device(f"cuda:{index}", "cuda", "GPU", ByteCount(size), ByteCount(size), note=note)
        for index, size in enumerate(gpus)
    ]
    return Machine((*devices, host_device(host)), host)
