"""The engine: K/V, drafting, verification, sampling and depth, one file each."""
