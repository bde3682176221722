"""Benchmarks: Citadel beside a baseline, measured in one run. `python -m tests.bench` writes bench-results/latest.json."""
