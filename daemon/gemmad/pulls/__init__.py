"""Pull jobs: what a plan names is brought into the store, shared by all who ask for it."""
