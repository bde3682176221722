"""Exit codes, and which error means which."""

from enum import IntEnum

from citadel_client.errors import CallTimedOut, CitadelApiError, ServerUnreachable


class ExitCode(IntEnum):
    """What scripts can tell apart; `citadel --help` documents it."""

    OK = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    UNHEALTHY = 4
    INTERRUPTED = 130


class UsageError(Exception):
    """The command was given something that it cannot take."""


def code_of(error: Exception) -> ExitCode:
    """The exit code for an error."""
    if isinstance(error, UsageError):
        return ExitCode.USAGE
    return ExitCode.UNREACHABLE if isinstance(error, ServerUnreachable | CallTimedOut) else ExitCode.FAILED


def describe(error: Exception) -> str:
    """An error in a few lines for people."""
    if isinstance(error, CitadelApiError) and error.status is None:
        return error.message
    return str(error)
