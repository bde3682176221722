"""What the API and the embeddings service share: vectors, the cache, the model catalogue, request checks."""
