"""Double of an OTLP/HTTP receiver."""
