"""`python -m citadel_monitoring` runs the worker."""

from citadel_monitoring.worker import main

main()
