"""The `gemma` command: a thin client of the daemon; needs click and `gemmad.api` only."""
