"""Quantized matrices, kept packed: one format a file, and the products that read them."""
