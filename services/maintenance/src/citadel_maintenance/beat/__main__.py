"""`python -m citadel_maintenance.beat` runs one candidate."""

from citadel_maintenance.beat.process import main

main()
