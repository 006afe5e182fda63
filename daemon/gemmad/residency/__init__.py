"""What is in memory: which pairs are loaded, who may use them, and who leaves."""
