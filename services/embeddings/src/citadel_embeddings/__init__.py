"""The embeddings worker: texts in, vectors out."""
