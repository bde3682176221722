"""`python -m citadel_orchestration` runs the worker."""

from citadel_common.loading import loading

with loading():
    from citadel_orchestration.worker import main

main()
