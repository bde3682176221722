"""Where the vector store is."""

import pytest
from pydantic import ValidationError
from structlog.testing import capture_logs

from citadel_common.settings.qdrant import QdrantSettings
from citadel_orchestration.vectors.server import ServerConnection


def test_without_a_url_it_is_embedded():
    assert QdrantSettings().url is None


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("http://qdrant", "http://qdrant:6333"),
        ("http://qdrant:7333/", "http://qdrant:7333"),
        ("https://example.org/vectors/", "https://example.org:6333/vectors"),
        ("http://[::1]", "http://[::1]:6333"),
    ],
)
def test_a_url_names_its_port(given, used):
    assert QdrantSettings(url=given).url == used


@pytest.mark.parametrize("url", ["qdrant:6333", "ftp://qdrant", "http://", "http://me:secret@", "http://q:port"])
def test_a_url_that_cannot_be_used_is_refused(url):
    with pytest.raises(ValidationError, match="url"):
        QdrantSettings(url=url)


def test_the_key_is_not_shown():
    assert "s3cret" not in repr(QdrantSettings(api_key="s3cret"))


@pytest.mark.parametrize(
    ("url", "warned"),
    [("http://qdrant", True), ("https://qdrant", False), ("http://127.0.0.1", False), ("http://localhost", False)],
)
def test_a_key_sent_in_the_clear_is_worth_a_warning(url, warned):
    with capture_logs() as logs:
        ServerConnection(QdrantSettings(url=url, api_key="s3cret"))

    assert [entry["event"] for entry in logs] == ["qdrant_api_key_unencrypted"] * warned
    assert "s3cret" not in str(logs)
