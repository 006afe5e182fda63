"""Gemma 4 targets and drafters as plain torch, and how they are read from disk."""
