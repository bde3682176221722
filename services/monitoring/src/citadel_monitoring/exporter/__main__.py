"""Entry point: `python -m citadel_monitoring.exporter` runs the exporter."""

from citadel_common.startup import gc_paused_imports

with gc_paused_imports():
    from citadel_monitoring.exporter.process import main

if __name__ == "__main__":
    main()
