"""Files that `make secrets` writes."""

import hashlib
import json
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
HOST_ONLY = {"api_key"}
THE_OWNERS = {"tls_certificate", "tls_key"}
"""Files that only the owner of the domain has."""
VALUES = ("redis_password", "redis_cache_password", "postgres_password", "qdrant_api_key", "api_key", "metrics_key")


def make_secrets(directory: Path) -> str:
    command = [sys.executable, str(ROOT / "scripts" / "secrets"), "--directory", str(directory)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout


def read(directory: Path) -> dict[str, str]:
    return {path.name: path.read_text().strip() for path in directory.iterdir()}


@pytest.fixture
def directory(tmp_path) -> Path:
    make_secrets(tmp_path / "secrets")
    return tmp_path / "secrets"


def test_every_secret_that_the_stack_mounts_is_written(directory):
    named = yaml.safe_load((ROOT / "compose" / "networks.yaml").read_text())["secrets"]
    mounted = {Path(secret["file"]).name for secret in named.values()}
    assert mounted - THE_OWNERS | HOST_ONLY == set(read(directory))


def test_values_are_long_and_differ(directory, tmp_path):
    make_secrets(tmp_path / "others")
    values = [read(place)[name] for place in (directory, tmp_path / "others") for name in VALUES]
    assert len(set(values)) == len(values)
    assert all(len(value) >= 43 for value in values)


def test_containers_users_can_read_them_and_other_users_of_the_host_cannot(directory):
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    for path in directory.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == (0o600 if path.name in HOST_ONLY else 0o444)


def test_a_second_run_changes_nothing(directory):
    before = read(directory)
    assert make_secrets(directory) == "secrets: all there\n"
    assert read(directory) == before


def test_missing_files_are_derived_from_existing_ones(directory):
    for derived in ("redis_acl", "qdrant_config", "api_keys"):
        (directory / derived).unlink()
    before = read(directory)
    make_secrets(directory)
    after = read(directory)
    assert before.items() <= after.items()
    assert hashlib.sha256(after["redis_password"].encode()).hexdigest() in after["redis_acl"]
    assert yaml.safe_load(after["qdrant_config"]) == {"service": {"api_key": after["qdrant_api_key"]}}
    keys = {key["name"]: (key["hash"], set(key["scopes"])) for key in json.loads(after["api_keys"])}
    assert keys == {
        "operator": (hashlib.sha256(after["api_key"].encode()).hexdigest(), {"read", "submit", "admin"}),
        "prometheus": (hashlib.sha256(after["metrics_key"].encode()).hexdigest(), {"read"}),
    }


def test_no_value_is_printed(tmp_path):
    output = make_secrets(tmp_path / "secrets")
    values = [line for text in read(tmp_path / "secrets").values() for line in text.splitlines() if len(line) > 20]
    assert values
    assert not [value for value in values if value in output]


def test_redis_keeps_the_password_as_a_hash_only(directory):
    found = read(directory)
    assert found["redis_password"] not in found["redis_acl"]
    assert found["redis_cache_password"] not in found["redis_cache_acl"]
