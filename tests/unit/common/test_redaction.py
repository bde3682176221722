"""Secrets of a process's settings, as they would be written down."""

from pydantic import BaseModel, SecretStr

from citadel_common.redaction import passwords_of, secrets_of, without_credentials


class Endpoint(BaseModel):
    """One of many."""

    url: str = "http://plain.example"
    key: SecretStr | None = None


class Settings(BaseModel):
    """With secrets at every depth."""

    store: SecretStr = SecretStr("redis://user:pass%2Fword-1@host:6379/0")
    short: SecretStr = SecretStr("abc")
    broken: SecretStr = SecretStr("redis://[::1")
    endpoints: dict[str, Endpoint] = {"main": Endpoint(key=SecretStr("key-of-main")), "other": Endpoint()}
    listed: list[Endpoint] = [Endpoint(key=SecretStr("key-of-listed"))]


def test_keys_and_passwords_are_found_at_every_depth_and_short_ones_left_out() -> None:
    assert secrets_of(Settings()) == {"pass%2Fword-1", "pass/word-1", "key-of-main", "key-of-listed"}


def test_a_url_of_several_sentinels_is_shown_without_any_password() -> None:
    url = "sentinel://:first-pw@a:1;sentinel://:second-pw@b:2/0"
    assert without_credentials(url) == "sentinel://a:1;sentinel://b:2/0"
    assert set(passwords_of(url)) == {"first-pw", "second-pw"}


def test_a_password_with_unquoted_delimiters_is_not_shown() -> None:
    assert without_credentials("redis://:a/b?c@d#e@host:6379/0") == "redis://host:6379/0"
