"""Clean-up of the embedding cache."""
