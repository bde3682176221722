"""`python -m citadel_monitoring` runs the worker."""

from citadel_common.loading import loading

with loading():
    from citadel_monitoring.worker import main

main()
