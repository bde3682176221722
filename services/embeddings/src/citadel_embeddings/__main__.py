"""`python -m citadel_embeddings` runs the worker."""

from citadel_embeddings.worker import main

main()
