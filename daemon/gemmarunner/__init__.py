"""The child process: the only one that imports torch; runs one pair."""
