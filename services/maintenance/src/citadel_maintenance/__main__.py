"""`python -m citadel_maintenance` runs the worker."""

from citadel_common.loading import loading

with loading():
    from citadel_maintenance.worker import main

main()
