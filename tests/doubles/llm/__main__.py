"""The LLM double as a server: `python -m tests.doubles.llm --port 0 --models tiny-llm,other`."""

from tests.doubles.base.server import main
from tests.doubles.llm.app import LlmDouble
from tests.doubles.llm.settings import LlmSettings

if __name__ == "__main__":
    main(LlmDouble, LlmSettings, __doc__)
