"""`python -m citadel_maintenance.beat` runs one candidate."""

from citadel_common.startup import gc_paused_imports

with gc_paused_imports():
    from citadel_maintenance.beat.process import main

main()
