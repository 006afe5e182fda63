"""A pair on an accelerator: fused operators, slots for several sequences, a round in one graph."""
