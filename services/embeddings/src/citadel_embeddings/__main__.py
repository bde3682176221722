"""`python -m citadel_embeddings` runs the worker."""

from citadel_common.startup import gc_paused_imports

with gc_paused_imports():
    from citadel_embeddings.worker import main

main()
