"""Memory that bodies may take, and what one is expected to take."""

import sys

import pytest

from citadel_contracts import json_text
from citadel_orchestration.api.http.body_memory import capacity_of, parsed_size

MEGABYTE = 2**20


@pytest.mark.parametrize(
    ("processes", "limit", "expected"),
    [
        (2, None, 192),
        (2, 4096 * MEGABYTE, 192),
        (2, 1024 * MEGABYTE, 192),
        (4, 1024 * MEGABYTE, 96),
        (1, 256 * MEGABYTE, 96),
        (8, 128 * MEGABYTE, 16),
    ],
)
def test_processes_share_what_the_container_may_use(processes: int, limit: int | None, expected: int) -> None:
    assert capacity_of(192 * MEGABYTE, processes, limit) == expected * MEGABYTE


@pytest.mark.parametrize("last", ["x", "é", "\\u00e9", "Ж", "\\u0416", "😀", "\\ud83d\\ude00", "\\uD83D\\uDE00"])
@pytest.mark.parametrize("size", [1000, 20 * MEGABYTE])
def test_one_wide_character_makes_all_of_its_text_wide(last: str, size: int) -> None:
    body = b'["' + b"x" * size + last.encode() + b'"]'
    assert parsed_size(body) >= len(body) + sys.getsizeof(json_text.loads(body)[0])
