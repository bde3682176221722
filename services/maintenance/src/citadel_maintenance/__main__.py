"""`python -m citadel_maintenance` runs the worker."""

from citadel_maintenance.worker import main

main()
