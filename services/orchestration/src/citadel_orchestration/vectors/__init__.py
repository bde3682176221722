"""The vector store (Qdrant)."""
