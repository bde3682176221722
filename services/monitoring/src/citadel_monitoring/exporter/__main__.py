"""`python -m citadel_monitoring.exporter` runs the exporter."""

from citadel_common.loading import loading

with loading():
    from citadel_monitoring.exporter.process import main

if __name__ == "__main__":
    main()
