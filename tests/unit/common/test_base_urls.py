"""Which URLs of servers are usable, and where the routes of each protocol lie."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from citadel_contracts.base_urls import http_url, ollama_base, openai_base

AZURE = "https://x.openai.azure.com/openai/deployments/x"


@pytest.mark.parametrize(
    ("url", "route"),
    [
        ("http://gpu1", "http://gpu1/v1/embeddings"),
        ("http://gpu1:8000/", "http://gpu1:8000/v1/embeddings"),
        ("http://gpu1//", "http://gpu1/v1/embeddings"),
        ("http://gpu1/v1", "http://gpu1/v1/embeddings"),
        ("http://gpu1/v1/", "http://gpu1/v1/embeddings"),
        ("https://g.example/v1beta/openai", "https://g.example/v1beta/openai/embeddings"),
        ("https://g.example/v1beta/openai/", "https://g.example/v1beta/openai/embeddings"),
        ("https://ark.example/api/v3", "https://ark.example/api/v3/embeddings"),
        ("https://gw.example/v1/account/gateway/openai", "https://gw.example/v1/account/gateway/openai/embeddings"),
        ("https://ai.example/models", "https://ai.example/models/embeddings"),
        (AZURE, f"{AZURE}/embeddings"),
        (f"{AZURE}?api-version=2024-10-21", f"{AZURE}/embeddings?api-version=2024-10-21"),
        (f"{AZURE}/embeddings?api-version=2024-10-21", f"{AZURE}/embeddings?api-version=2024-10-21"),
        ("https://gpu1?key=a%2Fb", "https://gpu1/v1/embeddings?key=a%2Fb"),
        ("http://gpu1/v1/embeddings", "http://gpu1/v1/embeddings"),
        ("http://gpu1/v1/chat/completions/", "http://gpu1/v1/embeddings"),
        ("http://gpu1/embeddings", "http://gpu1/embeddings"),
        ("http://me:p%40ss@gpu1/v1", "http://me:p%40ss@gpu1/v1/embeddings"),
        ("http://[::1]:8000", "http://[::1]:8000/v1/embeddings"),
    ],
)
def test_a_path_is_taken_as_given_and_a_bare_host_gets_v1(url, route):
    assert openai_base(url).route("/embeddings") == route


@pytest.mark.parametrize(
    ("url", "route"),
    [
        ("http://gpu1:11434", "http://gpu1:11434/api/embed"),
        ("http://gpu1:11434/", "http://gpu1:11434/api/embed"),
        ("http://gpu1:11434/v1/", "http://gpu1:11434/api/embed"),
        ("http://gpu1:11434/api", "http://gpu1:11434/api/embed"),
        ("http://gpu1:11434/api/generate", "http://gpu1:11434/api/embed"),
        ("http://gpu1:11434/v1/chat/completions", "http://gpu1:11434/api/embed"),
        ("https://gw.example/ollama", "https://gw.example/ollama/api/embed"),
        ("https://gw.example/ollama/api/chat?key=1", "https://gw.example/ollama/api/embed?key=1"),
        ("https://gw.example/api/v3", "https://gw.example/api/v3/api/embed"),
    ],
)
def test_ollamas_routes_lie_below_the_path_of_a_proxy(url, route):
    assert ollama_base(url).route("/api/embed") == route


@pytest.mark.parametrize(
    ("written", "called"),
    [
        ("HTTP://GPU1:8000/V1", "http://gpu1:8000/V1"),
        (" https://host/v1/\n", "https://host/v1"),
        ("https://bücher.example/ü?q=ö", "https://xn--bcher-kva.example/%C3%BC?q=%C3%B6"),
        ("http://ollama_1.internal.", "http://ollama_1.internal."),
        ("http://[FE80:0:0::1]:80", "http://[fe80::1]:80"),
        ("http://me:p@ss:w%2Frdä@host", "http://me:p%40ss:w%2Frd%C3%A4@host"),
        ("http://host/a%2Fb/{c}", "http://host/a%2Fb/%7Bc%7D"),
    ],
)
def test_a_url_is_called_in_ascii_with_scheme_and_host_in_lower_case(written, called):
    assert http_url(written) == called
    assert http_url(called) == called


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("", "has no scheme"),
        ("localhost:11434", "has no scheme"),
        ("//host/v1", "has no scheme"),
        ("http:/host", "has no scheme"),
        ("ftp://host", "must start with http"),
        ("redis://:geheim@host", "must start with http"),
        ("http://ho st", "has a space"),
        ("http://host/a b", "has a space"),
        ("http://host/\tv1", "has a space"),
        ("http://", "names no host"),
        ("http://:80", "names no host"),
        ("http://me:geheim@", "names no host"),
        ("http://ho\\st", "names no host"),
        ("http://ho%73t", "names no host"),
        ("http://host,other:80", "names no host"),
        ("http://[::1", "cannot be read"),
        ("http://::1:80", "cannot be read"),
        ("http://[fe80::zz]", "cannot be read"),
        ("http://host:port", "cannot be read"),
        ("http://host:65536", "cannot be read"),
        ("http://host:0", "has port 0"),
        ("http://me:ge/heim@host", "cannot be read"),
        ("http://host/#geheim", "has a fragment"),
        ("http://host/#", "has a fragment"),
    ],
)
def test_a_wrong_url_is_refused_without_being_repeated(url, problem):
    with pytest.raises(ValueError, match=problem) as refused:
        http_url(url)
    assert "geheim" not in str(refused.value)


@given(st.text() | st.from_regex(r"https?://[^/]*(/.*)?", fullmatch=True))
def test_any_text_is_a_url_in_ascii_or_refused(text):
    try:
        url = http_url(text)
    except ValueError:
        return
    assert url.isascii()
    assert http_url(url) == url
    assert openai_base(url).route("/models").isascii()
