"""The life of a child process that runs one pair, and the frames exchanged with it."""
