"""Settings: variables, files, and one line for what is wrong."""

import operator

import certifi
import pytest

from citadel_common.settings.common import EX_CONFIG, CommonSettings, load
from citadel_common.stores.redis import redacted
from citadel_embeddings.settings import EmbeddingsSettings
from citadel_orchestration.settings import ApiSettings, EngineSettings


@pytest.fixture
def env(monkeypatch):
    """Set CITADEL_ variables; the machine's own are hidden."""
    import os

    for name in [name for name in os.environ if name.startswith("CITADEL_")]:
        monkeypatch.delenv(name)

    def set_all(**values):
        for name, value in values.items():
            monkeypatch.setenv(f"CITADEL_{name}", str(value))

    return set_all


def refusal(capsys, kind=EmbeddingsSettings):
    with pytest.raises(SystemExit) as ended:
        load(kind)
    assert ended.value.code == EX_CONFIG
    [line] = capsys.readouterr().err.splitlines()
    return line.removeprefix("citadel: wrong setting: ")


def test_without_variables_the_defaults_hold(env):
    settings = load(EmbeddingsSettings)
    assert settings.default_model == "nomic-embed-text"
    assert settings.results == settings.cache_store == settings.broker_url
    assert settings.embeddings.backends["ollama"].urls == ["http://127.0.0.1:11434"]


def test_nested_fields_are_read_from_variables(env):
    env(WORKER__CONCURRENCY="3", WORKER__RETRY__BASE="0.5", CACHE__PRECISION="float16")
    settings = load(CommonSettings)
    assert (settings.worker.concurrency, settings.worker.retry.base, settings.cache.precision) == (3, 0.5, "float16")


@pytest.mark.parametrize(
    ("urls", "expected"),
    [("http://a,http://b", ["http://a", "http://b"]), (' ["http://a"] ', ["http://a"]), ("http://a , ", ["http://a"])],
)
def test_lists_need_no_json(env, urls, expected):
    env(EMBEDDINGS__BACKENDS__main__KIND="ollama", EMBEDDINGS__BACKENDS__main__URLS=urls)
    assert load(EmbeddingsSettings).embeddings.backends["main"].urls == expected


@pytest.mark.parametrize("name", ["BROKER_URL", "EMBEDDINGS__BACKENDS__main__API_KEY", "CACHE__TTL"])
def test_any_variable_may_be_a_file(env, tmp_path, name):
    values = {"BROKER_URL": "redis://x", "EMBEDDINGS__BACKENDS__main__API_KEY": "key", "CACHE__TTL": "5"}
    file = tmp_path / "secret"
    file.write_text(values[name] + "\n", encoding="utf-8")
    env(
        EMBEDDINGS__BACKENDS__main__KIND="ollama", EMBEDDINGS__BACKENDS__main__URLS="http://a", **{f"{name}_FILE": file}
    )
    settings = load(EmbeddingsSettings)
    key = settings.embeddings.backends["main"].api_key
    found = [settings.broker_url.get_secret_value(), key.get_secret_value() if key else "", str(settings.cache.ttl)]
    assert values[name] in found


def test_a_field_may_end_in_file(env, tmp_path):
    env(WORKER__HEALTH_FILE=tmp_path / "health")
    assert load(CommonSettings).worker.health_file == tmp_path / "health"


def test_a_variable_wins_over_its_file(env, tmp_path):
    (tmp_path / "url").write_text("redis://file", encoding="utf-8")
    env(BROKER_URL="redis://variable", BROKER_URL_FILE=tmp_path / "url")
    assert load(CommonSettings).broker_url.get_secret_value() == "redis://variable"


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_file_that_cannot_be_read_is_named(env, tmp_path, capsys, content):
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    env(RESULT_URL_FILE=file)
    assert refusal(capsys).startswith(f"CITADEL_RESULT_URL_FILE: cannot read {file}: ")


@pytest.mark.parametrize(
    ("name", "value", "named"),
    [
        ("WORKER__CONCURRENCY", "0", "CITADEL_WORKER__CONCURRENCY"),
        ("WORKER__NONSENSE", "1", "CITADEL_WORKER__NONSENSE"),
        ("CACHE__CLAIM_TTL", "soon", "CITADEL_CACHE__CLAIM_TTL"),
        ("BROKER_URL", "http://x", "CITADEL_BROKER_URL"),
        ("DEFAULT_MODEL", "", "CITADEL_DEFAULT_MODEL"),
        ("EMBEDDINGS__BACKENDS__x__KIND", "ollama", "CITADEL_EMBEDDINGS__BACKENDS__X"),
        ("EMBEDDINGS__BACKENDS", "{", "CITADEL_EMBEDDINGS__BACKENDS"),
    ],
)
def test_a_wrong_setting_is_named_in_one_line(env, capsys, name, value, named):
    env(**{name: value})
    assert refusal(capsys).startswith(f"{named}: ")


def test_secrets_are_not_shown(env, capsys):
    env(BROKER_URL="amqp://user:geheim@host")
    assert "geheim" not in refusal(capsys)
    env(BROKER_URL="redis://user:geheim@host/0?client_name=geheim")
    settings = load(CommonSettings)
    assert "geheim" not in repr(settings)
    assert redacted(settings.broker_url) == "redis://host/0"


def secrets(directory, **files):
    for name, content in files.items():
        (directory / f"citadel_{name}").write_text(content + "\n", encoding="utf-8")
    return directory


def test_secrets_are_files_of_a_directory(env, tmp_path):
    directory = secrets(
        tmp_path,
        broker_url="redis://:geheim@broker",
        embeddings__backends__main__api_key="key",
        api__keys="[]",  # a setting of another process
    )
    env(
        SECRETS_DIR=directory, EMBEDDINGS__BACKENDS__main__KIND="openai", EMBEDDINGS__BACKENDS__main__URLS="http://a/v1"
    )
    settings = load(EmbeddingsSettings)
    assert settings.broker_url.get_secret_value() == "redis://:geheim@broker"
    assert settings.embeddings.backends["main"].api_key.get_secret_value() == "key"


def test_variables_and_their_files_win_over_the_directory(env, tmp_path):
    (tmp_path / "named").write_text("redis://named", encoding="utf-8")
    env(
        SECRETS_DIR=secrets(tmp_path, broker_url="redis://secret", cache_url="redis://secret"),
        BROKER_URL="redis://variable",
        CACHE_URL_FILE=tmp_path / "named",
    )
    settings = load(CommonSettings)
    assert settings.broker_url.get_secret_value() == "redis://variable"
    assert settings.cache_store.get_secret_value() == "redis://named"


def test_a_directory_of_secrets_that_is_not_there_is_named(env, tmp_path, capsys):
    env(SECRETS_DIR=tmp_path / "none")
    assert refusal(capsys).startswith(f"CITADEL_SECRETS_DIR: cannot read {tmp_path / 'none'}: ")


def test_files_for_other_processes_are_not_read(env, tmp_path):
    env(BEAT__HEALTH_FILE=tmp_path / "health", API__KEYS_FILE=tmp_path / "none")
    load(CommonSettings)


def test_a_field_of_an_entry_may_end_in_file(env, tmp_path):
    env(API__KEYLESS="loopback", LLM__ENDPOINTS__x__URL="http://a/v1", LLM__ENDPOINTS__x__MODEL="m")
    env(LLM__ENDPOINTS__x__CA_FILE=certifi.where())
    assert str(load(ApiSettings).llm.endpoints["x"].ca_file) == certifi.where()


@pytest.mark.parametrize(
    ("url", "complete"),
    [
        ("redis://redis:6379/0", "redis://:p%40%2Fss@redis:6379/0"),
        ("redis://app@redis/0", "redis://app:p%40%2Fss@redis/0"),
        ("redis://:own@redis/0", "redis://:own@redis/0"),
        ("unix:///run/redis.sock", "unix://:p%40%2Fss@/run/redis.sock"),
        ("sentinel://a:1;sentinel://b:2/0", "sentinel://:p%40%2Fss@a:1;sentinel://:p%40%2Fss@b:2/0"),
    ],
)
def test_a_password_completes_its_url(env, url, complete):
    env(BROKER_URL=url, BROKER_PASSWORD="p@/ss")
    settings = load(CommonSettings)
    assert settings.broker_url.get_secret_value() == complete
    assert settings.results == settings.broker_url


def test_passwords_of_all_stores(env, tmp_path):
    directory = secrets(tmp_path, broker_password="one", cache_password="two", postgres_password="three")
    env(SECRETS_DIR=directory, CACHE_URL="redis://cache/0", POSTGRES_DSN="postgresql://citadel@db/citadel")
    env(API__KEYLESS="loopback")
    settings = load(ApiSettings)
    assert settings.broker_url.get_secret_value() == "redis://:one@127.0.0.1:6379/0"
    assert settings.cache_store.get_secret_value() == "redis://:two@cache/0"
    assert settings.postgres_dsn.get_secret_value() == "postgresql://citadel:three@db/citadel"
    assert "three" not in repr(settings)


@pytest.mark.parametrize(
    ("variable", "field"),
    [
        ("POSTGRES__GRANT_TO", "postgres.grant_to"),
        ("POSTGRES__SEARCH_PATH", "postgres.search_path"),
        ("POSTGRES__MIGRATION_DSN", "postgres.migration_dsn"),
        ("STORES__SENTINEL_USERNAME", "stores.sentinel_username"),
        ("STORES__SENTINEL_MASTER", "stores.sentinel_master"),
        ("LLM__DEFAULT_ENDPOINT", "llm.default_endpoint"),
    ],
)
def test_an_empty_variable_is_none_where_none_is_the_default(env, variable, field):
    """Compose files hand on `${VARIABLE:-}`."""
    env(**{variable: ""})
    assert operator.attrgetter(field)(load(EngineSettings)) is None
