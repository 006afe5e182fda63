"""Ollama's API in its shapes, with the drafter's figures added."""
