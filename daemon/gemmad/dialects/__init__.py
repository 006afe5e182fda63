"""Pure translations between what clients speak and what the daemon means."""
