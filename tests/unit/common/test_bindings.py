"""Bindings of clients with other separators."""

import pytest

from citadel_common.delivery.bindings import binding_of

DEFAULT = "\x06\x16"
REPLY = "766541f1-fa51-3699-9303-50e4fa087f6e"


@pytest.mark.parametrize(
    ("member", "binding"),
    [
        (f"key{DEFAULT}{DEFAULT}queue", ("key", "", "queue")),
        (f"a.#{DEFAULT}^a\\..*?${DEFAULT}queue", ("a.#", "^a\\..*?$", "queue")),
        (f"{DEFAULT}{DEFAULT}queue", ("", "", "queue")),
        (f"a::b{DEFAULT}{DEFAULT}queue", ("a::b", "", "queue")),
        (f"{REPLY}::{REPLY}.reply.celery.pidbox", (REPLY, "", f"{REPLY}.reply.celery.pidbox")),
        ("key####queue", ("key", "", "queue")),
        ("::queue", ("", "", "queue")),
        ("a.#:^a\\..*?$:queue", None),
        ("queue", None),
        ("", None),
    ],
)
def test_a_binding_is_read_whatever_separates_its_parts(member: str, binding: tuple[str, str, str] | None) -> None:
    assert binding_of(member, DEFAULT) == binding
