"""Where a pair's files come from: the built-in pair today."""
