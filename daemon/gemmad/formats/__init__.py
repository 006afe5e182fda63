"""Formats of untrusted files: read within bounds, checked, and nothing written."""
