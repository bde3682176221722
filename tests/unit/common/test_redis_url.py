"""Redis URLs: every form that clients know, and a refusal without secrets of what none could use."""

import ssl

import certifi
import pytest

from citadel_common.settings.common import CommonSettings
from citadel_common.settings.redis_url import redis_address
from citadel_common.tasks.app import create_app

SECRET = "p@:/#%?&;[ü"
CODED = "p%40%3A%2F%23%25%3F%26%3B%5B%C3%BC"
CA = certifi.where()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://cache", {"servers": (("cache", 6379),), "database": 0, "tls": None}),
        ("redis://cache:7/3", {"servers": (("cache", 7),), "database": 3}),
        ("redis://cache?db=4", {"database": 4}),
        ("redis://cache/4?db=4", {"database": 4}),
        ("redis://[::1]:7/2", {"servers": (("::1", 7),), "database": 2}),
        ("redis://[2001:db8::5]", {"servers": (("2001:db8::5", 6379),)}),
        (f"redis://app:{CODED}@cache/1", {"username": "app", "password": SECRET, "servers": (("cache", 6379),)}),
        (f"redis://:{CODED}@cache", {"username": None, "password": SECRET}),
        ("redis://:a@b:c&d@cache", {"password": "a@b:c&d", "servers": (("cache", 6379),)}),
        ("redis://app@cache", {"username": "app", "password": None}),
        (
            f"unix:///run/redis.sock?db=2&password={CODED}",
            {"path": "/run/redis.sock", "database": 2, "password": SECRET},
        ),
        ("unix://app:pw@/run/redis.sock", {"path": "/run/redis.sock", "username": "app", "password": "pw"}),
        ("redis+socket:///run/redis.sock?virtual_host=5", {"path": "/run/redis.sock", "database": 5}),
        ("unix:///run/a@b.sock", {"path": "/run/a@b.sock", "username": None}),
        (
            "sentinel://:pw@a;sentinel://:pw@b:7/2",
            {"servers": (("a", 26379), ("b", 7)), "password": "pw", "database": 2},
        ),
        ("sentinel://u:pw@a:1,b:2,[::1]:3/4", {"servers": (("a", 1), ("b", 2), ("::1", 3)), "username": "u"}),
        ("sentinel://a:1;b:2/0?master_name=main", {"servers": (("a", 1), ("b", 2)), "master": "main"}),
        (
            "sentinels://a:1",
            {"is_sentinel": True, "tls": {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_check_hostname": True}},
        ),
        ("redis://cache?socket_timeout=1.5", {"options": {"socket_timeout": 1.5}}),
    ],
)
def test_a_url_is_read_as_clients_mean_it(url, expected):
    found = redis_address(url)
    assert {name: getattr(found, name) for name in expected} == expected


@pytest.mark.parametrize("spelling", ["none", "CERT_NONE", "cert_none", "ssl.CERT_NONE", "None"])
def test_certificates_are_left_unchecked_in_every_spelling(spelling):
    assert redis_address(f"rediss://cache?ssl_cert_reqs={spelling}").tls == {
        "ssl_cert_reqs": ssl.CERT_NONE,
        "ssl_check_hostname": False,
    }


def test_certificates_are_checked_unless_the_url_says_otherwise():
    assert redis_address("rediss://cache").tls == {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_check_hostname": True}


@pytest.mark.parametrize("written", [CA, CA.replace("/", "%2F"), CA.replace("/", "%252F")])
def test_files_may_be_quoted_as_in_celery(written):
    tls = redis_address(f"rediss://cache?ssl_ca_certs={written}&ssl_cert_reqs=CERT_REQUIRED&ssl_check_hostname=no").tls
    assert tls == {"ssl_ca_certs": CA, "ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_check_hostname": False}


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://x", "must start with one of redis://"),
        ("redis-cluster://x", "must start with one of redis://"),
        ("geheim", "must start with one of redis://"),
        ("redis://:geh/eim@cache/0", "percent-codes"),
        ("redis://:geh#eim@cache", "percent-codes"),
        ("redis://:geh?eim@cache", "percent-codes"),
        ("redis://:geh?db=eim@cache", "percent-codes"),
        ("redis://:geh%eim@cache", "percent-codes"),
        ("redis://u:123/geheim@cache", "percent-codes"),
        ("redis://cache/eins", "must be a number"),
        ("redis://cache/-1", "must be a number"),
        ("redis://cache?db=x", "must be a number"),
        ("redis://cache/1?db=2", "two different databases"),
        ("redis://cache?ssl_cert_reqs=none", "rediss://"),
        ("unix:///x?ssl_cert_reqs=none", "rediss://"),
        ("rediss://cache?ssl_cert_reqs=maybe", "CERT_REQUIRED"),
        ("rediss://cache?ssl_ca_certs=/does/not/exist", "there is no file /does/not/exist"),
        (f"rediss://cache?ssl_keyfile={CA}", "without ssl_certfile"),
        ("redis://cache?socket_timout=3", "unknown parameter socket_timout"),
        ("redis://cache?socket_timeout=soon", "number of seconds"),
        ("redis://cache:65536", "host and port"),
        ("redis://a:1,b:2", "host and port"),
        ("unix://run/redis.sock", "absolute path"),
    ],
)
def test_what_no_client_could_use_is_refused_without_its_secret(url, words):
    with pytest.raises(ValueError, match=words) as refused:
        redis_address(url)
    assert "geh" not in str(refused.value)
    assert "eim" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (f"redis://app:{CODED}@[::1]:7/3", {"host": "::1", "port": 7, "db": 3, "username": "app", "password": SECRET}),
        (f"unix://:{CODED}@/run/redis.sock?db=2", {"path": "/run/redis.sock", "db": 2, "password": SECRET}),
        ("rediss://cache/1?ssl_cert_reqs=none", {"host": "cache", "db": 1, "ssl_cert_reqs": ssl.CERT_NONE}),
        ("redis://cache?socket_timeout=1.5", {"socket_timeout": 1.5, "socket_connect_timeout": 2.0}),
    ],
)
def test_the_result_backend_gets_the_same(url, expected):
    app = create_app(CommonSettings(broker_url=url))
    results = app.backend.connparams
    assert {name: results[name] for name in expected} == expected
