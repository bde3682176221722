"""Settings: frozen fragments read from `CITADEL_*` variables, built once at the entry point."""
