"""Entry point: `python -m citadel_maintenance` runs the worker."""

from citadel_common.startup import gc_paused_imports

with gc_paused_imports():
    from citadel_maintenance.worker import main

main()
