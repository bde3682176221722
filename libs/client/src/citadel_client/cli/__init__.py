"""The `citadel` command."""

from citadel_client.cli.app import main

__all__ = ["main"]
