"""Programs that tests need and a machine may lack."""

import os
import shutil
from typing import NoReturn

import pytest


def lacking(reason: str) -> NoReturn:
    """Skip the test with a reason; in CI, where nothing may be missing, fail."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def program(name: str, *, hint: str = "") -> str:
    """Return the path of a program."""
    found = shutil.which(name)
    if found is None:
        lacking(f"{name} is not installed{hint and ': '}{hint}")
    return found


def optional_program(*names: str) -> str:
    """Return the path of the first of these that is there; a machine may lack them in CI, too."""
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip(f"{' or '.join(names)} is not installed")
    return found
