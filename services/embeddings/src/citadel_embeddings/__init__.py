"""The embeddings service: texts in, vectors out."""
