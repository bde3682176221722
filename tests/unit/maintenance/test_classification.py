"""Classification of the keys of a shared Redis by the clean-up of the cache."""

import pytest

from citadel_common.embeddings.keys import NAMESPACE, SCHEMA, KeySpace
from citadel_maintenance.cache.classification import classify

HOUR = 3_600_000
FOREVER, MISSING = -1, -2


class FakeModels:
    """All models are alive but `gone@1`."""

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
        (key_of("gone@1"), MISSING, None),
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
def test_only_unreachable_entries_are_removed(key, ttl, kind):
    assert classify(key, ttl, FakeModels()).kind == kind


def test_entries_of_the_same_dimensions_share_a_group():
    groups = {classify(key_of("here@1", dimensions), HOUR, FakeModels()).group for dimensions in (None, 64, 64)}
    assert len(groups) == 2
