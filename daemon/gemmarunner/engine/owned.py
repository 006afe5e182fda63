"""What this process holds of a device's memory: compared, it says what became free."""

import torch

from gemmarunner.footprint import allocated_host_bytes, own_host_bytes


def allocated_bytes(device: torch.device) -> int:
    """Bytes in use by tensors and packed weights: of something small, more exact than `own_bytes`.

    0: nobody counts.
    """
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    if device.type == "mps":
        return torch.mps.current_allocated_memory()
    return allocated_host_bytes() or 0


def own_bytes(device: torch.device) -> int:
    """Bytes held; what torch keeps for later is given back first. 0: the system does not say."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        return torch.cuda.memory_reserved(device)
    if device.type == "mps":
        torch.mps.empty_cache()
        return torch.mps.driver_allocated_memory()
    return own_host_bytes() or 0
