"""The contract clients read: errors, paths, defaults. Standard library only."""
