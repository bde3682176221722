"""The limits of nginx in front of the API are the API's own."""

import re

import pytest

from citadel_orchestration.settings import ApiFragment
from tests.unit.deploy.files import COMPOSE, load

CONF = (COMPOSE / "proxy" / "nginx.conf").read_text(encoding="utf-8")
UNITS = {"m": 2**20, "k": 2**10, "s": 1, "": 1}


def sizes(directive: str) -> list[int]:
    """Return the values of a directive in the order of the file, in bytes or seconds."""
    found = re.findall(rf"^ *{directive} (\d+)([mks]?);", CONF, re.MULTILINE)
    return [int(number) * UNITS[unit] for number, unit in found]


@pytest.mark.parametrize(
    ("directive", "setting"),
    [
        ("client_header_timeout", "header_timeout"),
        ("client_body_timeout", "upload_timeout"),
        ("keepalive_timeout", "keep_alive"),
    ],
)
def test_a_time_is_the_apis(directive, setting):
    assert sizes(directive) == [ApiFragment.model_fields[setting].default]


def test_bodies_and_batches_have_the_apis_sizes():
    fields = ApiFragment.model_fields
    assert sizes("client_max_body_size") == [fields["max_body_bytes"].default, fields["max_batch_bytes"].default]


def test_headers_and_clients_have_the_apis_limits():
    fields = ApiFragment.model_fields
    ((number, each),) = re.findall(r"large_client_header_buffers (\d+) (\d+)k;", CONF)
    assert int(each) * 1024 == fields["max_url_bytes"].default
    assert int(number) * int(each) * 1024 == fields["max_header_bytes"].default
    assert re.findall(r"limit_conn clients (\d+);", CONF) == [str(fields["max_client_connections"].default)]


def test_nothing_is_held_back():
    for directive in ("proxy_buffering", "proxy_request_buffering"):
        assert re.findall(rf"{directive} (\w+);", CONF) == ["off"]


def test_the_overlay_publishes_nginx_and_no_longer_the_api():
    services = load("proxy.yaml")["services"]
    assert services["proxy"] == {"profiles": []}
    assert services["api"]["ports"] == []
