"""Delays that servers ask for, in all the forms in which they do."""

import email.utils
import time
from datetime import UTC, datetime

import pytest

from citadel_orchestration.llm.delays import LONGEST, delay_asked_for, duration


def asked(message="", content=None, **headers):
    return delay_asked_for({name.replace("_", "-"): value for name, value in headers.items()}, content, message)


def in_ten_seconds(form):
    at = time.time() + 10
    moment = datetime.fromtimestamp(at, UTC)
    forms = {
        "http": email.utils.format_datetime(moment, usegmt=True),
        "iso": moment.isoformat(),
        "z": moment.isoformat().replace("+00:00", "Z"),
        "epoch": str(int(at)),
        "milliseconds": str(int(at * 1000)),
    }
    return forms[form]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("6m0s", 360), ("1s", 1), ("120ms", 0.12), ("7.66s", 7.66), ("2m59.56s", 179.56), ("1h2m3.5s", 3723.5),
        ("36.500000000s", 36.5), ("500us", 0.0005), ("1d", 86_400), ("20", 20), ("2.5", 2.5), (20, 20), ("0", 0),
        ("soon", None), ("", None), (None, None), (True, None), ("nan", None), ([], None), ("1x", None),
    ],
)  # fmt: skip
def test_durations(text, seconds):
    assert duration(text) == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize(
    ("header", "form"),
    [
        *(("retry_after", form) for form in ("http", "iso", "z")),
        *(("x_ratelimit_reset", form) for form in ("iso", "z", "epoch", "milliseconds")),
        *(("anthropic_ratelimit_tokens_reset", form) for form in ("iso", "z", "epoch", "milliseconds")),
    ],
)
def test_points_in_time(header, form):
    assert asked(**{header: in_ten_seconds(form)}) == pytest.approx(10, abs=1.5)


@pytest.mark.parametrize("ahead", [3600, -3600, 86_400 * 400])
@pytest.mark.parametrize("form", ["http", "iso", "z", "epoch", "milliseconds"])
def test_points_in_time_are_those_of_the_servers_clock(monkeypatch, form, ahead):
    """The response's Date tells it; a cache that has kept the response says for how long."""
    header = "retry_after" if form in ("http", "iso", "z") else "x_ratelimit_reset"
    ours, now = time.time, time.time()
    monkeypatch.setattr(time, "time", lambda: ours() + ahead)
    at = in_ten_seconds(form)  # by a server that is as far ahead
    date = email.utils.formatdate(now + ahead, usegmt=True)
    monkeypatch.setattr(time, "time", lambda: ours() - ahead)
    assert asked(**{header: at, "date": date}) == pytest.approx(10, abs=1.5)
    assert asked(**{header: at, "date": date, "age": "7"}) == pytest.approx(3, abs=1.5)


@pytest.mark.parametrize("value", ["6", "6.0", "6s"])
def test_retry_after_comes_before_the_limits(value):
    assert asked(retry_after=value, x_ratelimit_reset_requests="6m0s") == 6


@pytest.mark.parametrize("name", ["retry_after_ms", "x_ms_retry_after_ms"])
def test_milliseconds_come_before_seconds(name):
    assert asked(**{name: "250", "retry_after": "9"}) == 0.25


def test_the_limit_that_is_used_up_counts():
    limits = {"x_ratelimit_reset_requests": "6m0s", "x_ratelimit_reset_tokens": "120ms"}
    assert asked(**limits) == 360
    used_up = {"x_ratelimit_remaining_requests": "59", "x_ratelimit_remaining_tokens": "0"}
    assert asked(**limits, **used_up) == pytest.approx(0.12)


def test_googles_retry_info_is_read():
    details = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "36.5s"}]
    assert asked(content={"error": {"code": 429, "details": details}}) == 36.5


def test_headers_behind_a_router_are_read():
    assert (
        asked(content={"error": {"metadata": {"headers": {"X-RateLimit-Reset": in_ten_seconds("milliseconds")}}}}) > 8
    )


@pytest.mark.parametrize(
    ("words", "seconds"),
    [
        ("Rate limit reached. Please try again in 6m0s. Visit", 360),
        ("Please try again in 7.66s.", 7.66),
        ("Please retry in 36.5s.", 36.5),
        ("Please retry after 26 seconds.", 26),
        ("try again in 2 minutes", 120),
        ("try again later", None),
        ("retry in a moment", None),
    ],
)
def test_words_are_read_where_nothing_else_is_said(words, seconds):
    assert asked(words) == seconds
    assert asked(words, retry_after="3") == 3


@pytest.mark.parametrize("value", ["inf", "1e300", "9" * 400, "99999999"])
def test_absurd_delays_are_capped(value):
    assert asked(retry_after=value) == LONGEST


@pytest.mark.parametrize("value", ["-5", "Wed, 21 Oct 2015 07:28:00 GMT"])
def test_delays_that_are_over_are_none(value):
    assert asked(retry_after=value) == 0


@pytest.mark.parametrize("value", ["", "soon", "nan", "\x00", "1,5", "Wed, 99 Oct"])
def test_what_is_no_delay_is_ignored(value):
    assert asked(retry_after=value) is None
    assert asked(x_ratelimit_reset=value) is None
