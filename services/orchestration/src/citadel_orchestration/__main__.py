"""`python -m citadel_orchestration` runs the worker."""

from citadel_orchestration.worker import main

main()
