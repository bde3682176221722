"""Client of the vector store (Qdrant)."""
