"""`python -m citadel_client` is the `citadel` command."""

from citadel_client.cli import main

main()
