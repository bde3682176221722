"""Addresses of servers, shown without credentials."""

import pytest
from pydantic import SecretStr

from citadel_monitoring.health import address

SECRET = "geh/eim"
READERS = {
    "http": address.of_http,
    "redis": lambda url: address.of_redis(SecretStr(url)),
    "postgres": lambda url: address.of_postgres(SecretStr(url)),
}


@pytest.mark.parametrize(
    ("of", "url", "shown", "target"),
    [
        ("redis", "redis://127.0.0.1:6380/2", "redis://127.0.0.1:6380/2", ("127.0.0.1", 6380, "")),
        ("redis", "redis://u:geh%2Feim@host/0", "redis://host/0", ("host", 6379, "")),
        ("redis", "rediss://:p@ss@host:1/0", "rediss://host:1/0", ("host", 1, "")),
        ("redis", "redis://host/0?password=geheim", "redis://host/0", ("host", 6379, "")),
        ("redis", "unix:///run/redis.sock?password=geheim", "unix:///run/redis.sock", ("", 0, "/run/redis.sock")),
        ("redis", "redis+socket:///run/redis.sock", "redis+socket:///run/redis.sock", ("", 0, "/run/redis.sock")),
        ("redis", "sentinel://:geheim@a:1;sentinel://:geheim@b:2/0", "sentinel://a:1;sentinel://b:2/0", ("a", 1, "")),
        ("redis", "redis://:a;b@host:1/0", "redis://host:1/0", ("host", 1, "")),
        ("redis", "sentinel://a;b:2/0", "sentinel://a;b:2/0", ("a", 26379, "")),
        ("postgres", "postgresql://u:geheim@db/x", "postgresql://db:5432/x", ("db", 5432, "")),
        ("postgres", "postgres://db:7/x?password=geheim", "postgresql://db:7/x", ("db", 7, "")),
        ("postgres", "postgresql://a:1,b:2/x", "postgresql://a,b:1,2/x", ("a", 1, "")),
        ("postgres", "postgresql://%2Frun%2Fpg/x", "postgresql:///run/pg:5432/x", ("", 0, "/run/pg/.s.PGSQL.5432")),
        ("http", "http://gpu1:11434", "http://gpu1:11434", ("gpu1", 11434, "")),
        ("http", "https://u:geheim@host/v1?key=geheim#x", "https://host/v1", ("host", 443, "")),
        ("http", "https://host/team@v1", "https://host/team@v1", ("host", 443, "")),
        ("http", "http://[::1]/x", "http://[::1]/x", ("::1", 80, "")),
    ],
)
def test_an_address_is_shown_without_credentials(of, url, shown, target):
    found = READERS[of](url)
    assert found.shown == shown
    assert (found.host, found.port, found.path) == target


@pytest.mark.parametrize(
    ("of", "url", "secrets"),
    [
        ("redis", "redis://:geh%2Feim@host/0", {"geh%2Feim", SECRET}),
        ("redis", "sentinel://:eins@a:1;sentinel://:zwei@b:2/0", {"eins", "zwei"}),
        ("redis", "redis://host/0?password=geheim", {"geheim"}),
        ("postgres", "postgresql://u:geh%2Feim@db/x", {SECRET}),
        ("http", "https://u:geheim@host/?key=schluessel", {"geheim", "schluessel"}),
    ],
)
def test_secrets_are_extracted_as_written_and_decoded(of, url, secrets):
    assert secrets <= set(READERS[of](url).secrets)


def test_an_unreadable_url_is_not_shown():
    assert "geheim" not in READERS["postgres"]("postgresql://u:geheim%zz@db/x").shown
