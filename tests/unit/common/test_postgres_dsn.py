"""PostgreSQL's DSNs: URLs and key=value pairs, and a refusal without secrets of what libpq could not use."""

import certifi
import pytest
from psycopg.conninfo import conninfo_to_dict
from pydantic import SecretStr

from citadel_common.redaction import secrets_of
from citadel_common.settings.common import EX_CONFIG, load
from citadel_common.settings.postgres import StoredSettings
from citadel_common.settings.postgres_dsn import parameters_of, settings_in
from citadel_common.stores.postgres_target import PostgresTarget, shown

CODED = "p%40%3A%2F%23%25%3F%26%27%5C%20"
SECRET = "p@:/#%?&'\\ "


@pytest.mark.parametrize(
    ("dsn", "expected"),
    [
        ("postgres://u:p@db/x", {"user": "u", "password": "p", "host": "db", "dbname": "x"}),
        (f"postgresql://u:{CODED}@db:7/x", {"password": SECRET, "host": "db", "port": "7"}),
        ("postgresql://u@db?options=-csearch_path%3Dcitadel", {"options": "-csearch_path=citadel"}),
        (f"postgresql://db/x?sslmode=verify-full&sslrootcert={certifi.where()}", {"sslmode": "verify-full"}),
        ("postgresql://db/x?sslmode=verify-full&sslrootcert=system", {"sslrootcert": "system"}),
        ("postgresql://a:1,b:2/x?target_session_attrs=read-write", {"host": "a,b", "port": "1,2"}),
        ("postgresql://a,b:2,[::1]/x", {"host": "a,b,::1", "port": ",2,"}),
        ("postgresql://%2Frun%2Fpg/x", {"host": "/run/pg"}),
        ("postgresql:///x?host=/run/pg&keepalives_idle=5", {"host": "/run/pg", "keepalives_idle": "5"}),
        ("host=/run/pg dbname=x user=u password='it''s'".replace("''", "\\'"), {"password": "it's", "host": "/run/pg"}),
        ("service=citadel", {"service": "citadel"}),
        ("postgresql:///x?ssl=true", {"sslmode": "require"}),
    ],
)
def test_urls_and_pairs_are_read_as_libpq_reads_them(dsn, expected):
    found = parameters_of(dsn)
    assert {name: found.get(name) for name in expected} == expected


@pytest.mark.parametrize(
    ("dsn", "words"),
    [
        ("mysql://u:geheim@db/x", "must start with postgresql://"),
        ("postgresql+psycopg://u:geheim@db/x", "the driver in the scheme"),
        ("geheim", "must start with postgresql://"),
        ("postgresql://u:geh@eim@db/x", "percent-codes"),
        ("postgresql://u:geh/eim@db/x", "percent-codes"),
        ("postgresql://u:12/geheim@db/x", "percent-codes"),
        ("postgresql://u:geh%eim@db/x", "percent-codes"),
        ("postgresql://u:geheim@[::1/x", "percent-codes"),
        ("postgresql://u:geheim@db:99999/x", "1 to 65535"),
        ("postgresql://u:geheim@a:1,b:2,c/x?port=1,2", "2 ports for 3 hosts"),
        ("postgresql://u:geheim@db/x?sslmod=require", "unknown parameter sslmod"),
        ("postgresql://u:geheim@db/x?sslmode=verify_full", "sslmode must be one of"),
        ("postgresql://u:geheim@db/x?target_session_attrs=rw", "target_session_attrs must be one of"),
        ("postgresql://u:geheim@db/x?sslrootcert=/does/not/exist", "there is no file /does/not/exist"),
        ("postgresql://u:geheim@db/x?connect_timeout=soon", "connect_timeout must be a whole number"),
        ("host=db password='geheim", "key=value pairs"),
        ("host=db pasword=geheim", "key=value pairs"),
    ],
)
def test_what_libpq_could_not_use_ends_with_one_line_without_the_secret(monkeypatch, capsys, dsn, words):
    monkeypatch.setenv("CITADEL_POSTGRES_DSN", dsn)
    with pytest.raises(SystemExit) as ended:
        load(StoredSettings)
    assert ended.value.code == EX_CONFIG
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("citadel: wrong setting: CITADEL_POSTGRES_DSN: ")
    assert words in line
    assert "geh" not in line
    assert "eim" not in line


@pytest.mark.parametrize(
    ("options", "settings", "others"),
    [
        ("-csearch_path=a,b", {"search_path": "a,b"}, ""),
        ("-c search_path=a -c work_mem=4MB", {"search_path": "a", "work_mem": "4MB"}, ""),
        ("--search-path=a", {"search_path": "a"}, ""),
        (r"-c search_path=a,\ b", {"search_path": "a, b"}, ""),
        ('-c search_path="$user",public', {"search_path": '"$user",public'}, ""),
        ("-B 5 -cx.y=1", {"x.y": "1"}, "-B 5"),
        ("", {}, ""),
    ],
)
def test_options_are_split_into_settings_and_the_rest(options, settings, others):
    assert settings_in(options) == (settings, others)


def test_the_connection_string_leaves_the_dsn_what_it_says_and_sends_no_options():
    dsn = SecretStr("postgresql://db/x?application_name=mine&keepalives_idle=77&options=-csearch_path%3Dcitadel")
    target = PostgresTarget.of(dsn, name="api", timeout=3)
    found = conninfo_to_dict(target.conninfo)
    assert (found["application_name"], found["keepalives_idle"], found["keepalives_count"]) == ("mine", "77", "3")
    assert "options" not in found
    assert (target.settings["search_path"], target.settings["statement_timeout"]) == ("citadel", "3000")


def test_the_search_path_of_the_settings_comes_before_the_one_of_the_dsn():
    dsn = SecretStr("postgresql://db/x?options=-csearch_path%3Dtheirs")
    assert PostgresTarget.of(dsn, name="api", search_path="mine").settings["search_path"] == "mine"


@pytest.mark.parametrize(
    ("dsn", "address"),
    [
        ("postgresql://u:geheim@db/x?sslpassword=geheim", "postgresql://db:5432/x"),
        ("host=a,::1 port=1,2 dbname=x password=geheim", "postgresql://a:1,[::1]:2/x"),
        ("service=citadel password=geheim", "postgresql service citadel"),
    ],
)
def test_addresses_are_shown_without_credentials(dsn, address):
    assert shown(SecretStr(dsn)) == address
    assert "geheim" not in repr(PostgresTarget.of(SecretStr(dsn), name="x"))


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://u:geheim@db/x",
        "host=db password=geheim",
        "host=db password='geheim'",
        "postgresql:///x?host=/run&password=geheim",
        "postgresql://db/x?sslpassword=geheim",
    ],
)
def test_passwords_in_every_form_are_known_to_the_log(dsn):
    assert secrets_of(StoredSettings(postgres_dsn=SecretStr(dsn))) == {"geheim"}


@pytest.mark.parametrize("dsn", ["host=db dbname=x user=u", "postgresql://u@db/x"])
def test_the_password_setting_completes_the_dsn_and_the_direct_one(dsn):
    settings = StoredSettings(
        postgres_dsn=SecretStr(dsn), postgres_password=SecretStr(SECRET), postgres={"direct_dsn": dsn}
    )
    assert settings.direct_dsn is not None
    for completed in (settings.postgres_dsn, settings.direct_dsn):
        assert parameters_of(completed.get_secret_value())["password"] == SECRET
