"""What each key of a shared Redis is to the cache's clean-up."""

import pytest

from citadel_common.embeddings.keys import NAMESPACE, SCHEMA, KeySpace
from citadel_maintenance.cache.rules import rule

HOUR = 3_600_000
FOREVER, NOT_THERE = -1, -2


class Known:
    """Models of which `gone@1` is gone."""

    def is_gone(self, identity: str) -> bool:
        return identity == "gone@1"


def key_of(identity: str, dimensions: int | None = None) -> str:
    return KeySpace(identity=identity, dimensions=dimensions, prefix="p", options={"a": 1}).key("text")


@pytest.mark.parametrize(
    ("key", "ttl", "kind"),
    [
        (key_of("here@1"), HOUR, None),
        (key_of("here@1"), FOREVER, "without_ttl"),
        (key_of("gone@1"), HOUR, "removed_models"),
        (key_of("gone@1", 64), HOUR, "removed_models"),
        (key_of("gone@1"), NOT_THERE, None),
        (key_of("gone@1") + ":claim", HOUR, None),
        (key_of("here@1") + ":claim", FOREVER, "without_ttl"),
        (f"{NAMESPACE}:0:here@1:own:00", HOUR, "old_schema"),
        (f"{NAMESPACE}:{int(SCHEMA) + 1}:gone@1:own:00", HOUR, None),
        (f"{NAMESPACE}:{int(SCHEMA) + 1}:gone@1:own:00", FOREVER, None),
        (f"{NAMESPACE}:beta:gone@1:own:00", FOREVER, None),
        (f"{NAMESPACE}:0", FOREVER, None),
        ("citadel:models", FOREVER, None),
        (f"other:{key_of('gone@1')}", FOREVER, None),
    ],
)
def test_only_what_nobody_can_ask_for_goes(key, ttl, kind):
    assert rule(key, ttl, Known()).kind == kind


def test_entries_of_one_size_are_one_group():
    groups = {rule(key_of("here@1", dimensions), HOUR, Known()).group for dimensions in (None, 64, 64)}
    assert len(groups) == 2
