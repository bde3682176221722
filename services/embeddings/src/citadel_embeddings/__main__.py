"""`python -m citadel_embeddings` runs the worker."""

from citadel_common.loading import loading

with loading():
    from citadel_embeddings.worker import main

main()
