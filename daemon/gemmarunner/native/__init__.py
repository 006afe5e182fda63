"""The CPU's products and layers in C, compiled when the package is installed."""
