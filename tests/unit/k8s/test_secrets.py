"""Secrets: existing ones are used unchanged, generated ones are complete."""

import base64
import hashlib
import json
import re

import pytest

from tests.unit.k8s.rendering import ROOT, VALUES, render, rendered, values_of

BUNDLED = {"citadel_broker_password", "citadel_cache_password", "citadel_postgres_password", "citadel_qdrant__api_key"}


def generated(values: dict) -> dict[str, str]:
    (secret,) = render(values).of("Secret").values()
    return {key: base64.b64decode(value).decode() for key, value in secret["data"].items()}


def test_secrets_of_bundled_servers_and_api_are_generated() -> None:
    made = generated({})
    assert set(made) == BUNDLED | {"api_key", "metrics_key", "citadel_api__keys"}
    assert all(len(made[key]) == 40 for key in set(made) - {"citadel_api__keys"})
    assert len({made[key] for key in made}) == len(made)


def test_the_api_knows_its_generated_keys_by_their_hashes_alone() -> None:
    made = generated({})
    keys = {one["name"]: one for one in json.loads(made["citadel_api__keys"])}
    assert keys["admin"]["hash"] == hashlib.sha256(made["api_key"].encode()).hexdigest()
    assert keys["metrics"]["hash"] == hashlib.sha256(made["metrics_key"].encode()).hexdigest()
    assert keys["metrics"]["scopes"] == ["read"]
    assert made["api_key"] not in made["citadel_api__keys"]


def test_no_password_is_made_for_servers_of_others() -> None:
    values = values_of("external") | {"secrets": {"existingSecret": ""}}
    assert set(generated(values)) == {"api_key", "metrics_key", "citadel_api__keys"}


def test_an_existing_secret_is_used_and_none_is_made() -> None:
    assert not rendered("external").of("Secret")
    names = {
        one["secret"]["secretName"]
        for _, template in rendered("external").pods()
        for one in template["spec"]["volumes"]
        if "secret" in one
    }
    assert names == {"citadel-secrets"}


@pytest.mark.parametrize("name", VALUES)
def test_the_guide_lists_every_key_of_an_existing_secret(name: str) -> None:
    guide = (ROOT / "k8s/README.md").read_text()
    for _, template in rendered(name).pods():
        for one in template["spec"]["volumes"]:
            for item in one.get("secret", {}).get("items", ()):
                key = re.sub(r"(__(?:backends|endpoints)__)\w+(__(?:api_key|headers|proxy))", r"\1NAME\2", item["key"])
                assert f"`{key}`" in guide


def test_the_passwords_outlive_the_release_as_the_data_do() -> None:
    (secret,) = rendered("default").of("Secret").values()
    assert secret["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}


@pytest.mark.parametrize("name", VALUES)
def test_a_generated_secret_contains_every_key_that_pods_use(name: str) -> None:
    secrets = rendered(name).of("Secret")
    if not secrets:
        return
    (secret,) = secrets.values()
    for component, template in rendered(name).pods():
        for one in template["spec"]["volumes"]:
            if "secret" in one and not one["secret"].get("optional"):
                assert {item["key"] for item in one["secret"]["items"]} <= set(secret["data"]), component
