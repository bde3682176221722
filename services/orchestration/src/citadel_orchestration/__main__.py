"""`python -m citadel_orchestration` runs the worker."""

from citadel_common.startup import gc_paused_imports

with gc_paused_imports():
    from citadel_orchestration.worker import main

main()
