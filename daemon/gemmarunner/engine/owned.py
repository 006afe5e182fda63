"""What this process holds of a device's memory: compared, it says what became free."""

import torch

from gemmarunner.footprint import own_host_bytes


def own_bytes(device: torch.device) -> int:
    """Bytes held; what torch keeps for later is given back first. 0: the system does not say."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        return torch.cuda.memory_reserved(device)
    if device.type == "mps":
        torch.mps.empty_cache()
        return torch.mps.driver_allocated_memory()
    return own_host_bytes() or 0
