"""Double of LLM servers, in the protocols of OpenAI and Ollama."""
