"""`python -m citadel_maintenance.beat` runs one candidate."""

from citadel_common.loading import loading

with loading():
    from citadel_maintenance.beat.process import main

main()
