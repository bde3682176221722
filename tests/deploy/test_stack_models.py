"""Models of the stack's Ollama, which cannot reach the Internet's."""

import shutil
from typing import Any

import pytest

from tests.deploy.engine import CommandFailed
from tests.deploy.stack import EMBEDDING_MODEL, LLM, LLM_MODELFILE, LONG, Stack
from tests.support.polling import eventually

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(600)]


@pytest.fixture
def another(stack: Stack):
    """Files of further models, two of which cannot be loaded."""
    names = ("another:1b.gguf", "broken.gguf", "closed.gguf")
    shutil.copy(stack.models / f"{EMBEDDING_MODEL}.gguf", stack.models / names[0])
    (stack.models / names[1]).write_text("no model")
    (stack.models / names[2]).write_text("no matter")
    (stack.models / names[2]).chmod(0)
    yield
    for name in names:
        (stack.models / name).unlink()


def installed(stack: Stack) -> dict[str, str]:
    """Return the digest of each model, by name."""
    lines = stack.exec(stack.containers("ollama")[0], "ollama", "list").splitlines()[1:]
    return {line.split()[0]: line.split()[1] for line in lines}


def load(stack: Stack, *models: str) -> tuple[int, str]:
    """Load the models of files, and pull others; return status and output."""
    try:
        return 0, stack.compose("run", "--rm", "--no-deps", "-T", "ollama-models", *models)
    except CommandFailed as error:
        return 1, str(error)


def test_files_became_models_and_doing_it_again_changes_nothing(stack):
    before = installed(stack)
    assert before.keys() == {f"{EMBEDDING_MODEL}:latest", f"{LLM}:latest"}
    status, output = load(stack)
    assert (status, installed(stack)) == (0, before)
    assert output.count("is loaded from /models/") == 2


def test_a_modelfile_sets_parameters_of_its_model(stack):
    (parameter,) = [line for line in LLM_MODELFILE.splitlines() if line.startswith("PARAMETER")]
    shown = stack.exec(stack.containers("ollama")[0], "ollama", "show", LLM, "--modelfile")
    assert parameter in shown


def test_a_model_that_is_there_is_not_pulled(stack):
    assert load(stack, EMBEDDING_MODEL)[0] == 0


def test_one_bad_file_is_named_and_keeps_no_other_from_being_loaded_and_used(stack, another):
    status, output = load(stack, "nowhere")
    assert status == 1
    assert "/models/broken.gguf was not loaded: " in output
    assert "/models/closed.gguf was not loaded: its user 0 may not read the file" in output
    assert "pulling nowhere" in output
    with stack.client() as citadel:
        name = "another:1b"
        one = citadel.embed("a text", model=EMBEDDING_MODEL).array
        eventually(lambda: _has(citadel, name), LONG)
        assert (citadel.embed("a text", model=name).array == one).all()
    stack.exec(stack.containers("ollama")[0], "ollama", "rm", name)


def _has(citadel: Any, name: str) -> bool:
    return name in {model.name for model in citadel.models()}
