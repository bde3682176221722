"""Entry point: `python -m citadel_monitoring` runs the worker."""

from citadel_common.startup import gc_paused_imports

with gc_paused_imports():
    from citadel_monitoring.worker import main

main()
