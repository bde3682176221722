"""Vectors, the embedding cache, the model catalog and request checks, shared by the API and the embeddings service."""
