"""Double of Ollama's embedding side and of OpenAI-style embedding servers."""
