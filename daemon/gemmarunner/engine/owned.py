"""What this process holds of a device's memory: compared, it says what became free."""

from collections.abc import Callable

import torch

from gemmarunner.footprint import allocated_host_bytes, own_host_bytes


def allocated_bytes(device: torch.device) -> int:
    """Bytes in use by tensors and packed weights: of something small, more exact than `freed_by`.

    0: nobody counts.
    """
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    if device.type == "mps":
        return torch.mps.current_allocated_memory()
    return allocated_host_bytes() or 0


def freed_by(device: torch.device, let_go: Callable[[], None]) -> int:
    """Bytes of the device that are free again after `let_go`, what torch kept for later included.

    On a GPU the driver says: graphs are not torch's. Others' use of it in the meantime counts too.
    0: the system does not say.
    """
    before = _held_bytes(device)
    let_go()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
    return max(0, before - _held_bytes(device))


def _held_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return total - free
    if device.type == "mps":
        return torch.mps.driver_allocated_memory()
    return own_host_bytes() or 0
