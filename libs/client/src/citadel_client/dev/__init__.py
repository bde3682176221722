"""The embedded stack: Redis, PostgreSQL, the workers and the API as child processes of one command."""

from citadel_client.dev.errors import DevError
from citadel_client.dev.stack import DevStack

__all__ = ["DevError", "DevStack"]
