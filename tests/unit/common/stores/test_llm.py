"""Settings of LLM endpoints: by variables, and refused by name."""

import pytest
from pydantic import Field, ValidationError

from citadel_common.settings.common import CommonSettings, load
from citadel_common.settings.llm import EndpointSettings, LlmSettings


class Mounted(CommonSettings):
    """As the service mounts them."""

    llm: LlmSettings = Field(default_factory=LlmSettings)


def test_endpoints_are_read_from_variables(monkeypatch, tmp_path):
    (tmp_path / "key").write_text("sk-1\n")
    for name, value in {
        "ENDPOINTS__GPU__URL": "https://gpu1/v1/",
        "ENDPOINTS__GPU__MODEL": "llama",
        "ENDPOINTS__GPU__API_KEY_FILE": str(tmp_path / "key"),
        "ENDPOINTS__local__STYLE": "ollama",
        "ENDPOINTS__local__URL": "http://127.0.0.1:11434",
        "ENDPOINTS__local__MODEL": "qwen3",
        "DEFAULT_ENDPOINT": "gpu",
    }.items():
        monkeypatch.setenv(f"CITADEL_LLM__{name}", value)
    llm = load(Mounted).llm
    assert llm.endpoints["gpu"].url == "https://gpu1/v1"
    assert llm.endpoints["gpu"].api_key.get_secret_value() == "sk-1"
    assert llm.endpoints["local"].style == "ollama"
    assert llm.default_endpoint == "gpu"
    assert "sk-1" not in repr(llm)


@pytest.mark.parametrize(
    "url",
    ["gpu1:11434", "ftp://gpu1", "http://", "http://me:pw@", "http://gpu1/ ?a=1", "http://gpu1/#a", "http://a:b"],
)
def test_a_bad_url(url):
    with pytest.raises(ValidationError, match="url"):
        EndpointSettings(url=url, model="m")


@pytest.mark.parametrize("key", ["", "ä", "a\nb"])
def test_a_bad_key_is_refused_and_not_shown(key):
    with pytest.raises(ValidationError, match="printable ASCII"):
        EndpointSettings(url="http://gpu1", model="m", api_key=key)


def test_the_default_must_exist():
    with pytest.raises(ValidationError, match="'gpu' is not among the endpoints"):
        LlmSettings(default_endpoint="gpu")


def test_a_url_is_no_name():
    with pytest.raises(ValidationError, match="is not a name for an endpoint"):
        LlmSettings(endpoints={"http://gpu1": EndpointSettings(url="http://gpu1", model="m")})


def test_certificates_must_exist(tmp_path):
    with pytest.raises(ValidationError, match="ca_file"):
        EndpointSettings(url="https://gpu1", model="m", ca_file=tmp_path / "none.pem")
