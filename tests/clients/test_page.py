"""The page for clients names the versions that are tried, and each client that it names has a snippet."""

import json
import re
from importlib import metadata

import pytest

from tests.clients.support import PAGE, ROOT, blocks

ROWS = re.findall(r"^\| \[(.+?)\]\(#.+?\) \| `(.+?)` \| (\S+) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
"""Client, package and version of each row of the table."""
JAVASCRIPT = json.loads((ROOT / "tests/clients/js/package.json").read_text())["dependencies"]


@pytest.mark.parametrize(("client", "package", "version"), ROWS)
def test_the_version_in_the_table_is_the_one_that_is_tried(client: str, package: str, version: str) -> None:
    if client in blocks("python"):
        assert metadata.version(package) == version
    else:
        assert client in blocks("js")
        assert JAVASCRIPT[package] == version


def test_each_snippet_is_in_the_table() -> None:
    assert {client for client, _, _ in ROWS} == blocks("python").keys() | blocks("js").keys()
