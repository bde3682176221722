"""Benchmarks: Citadel beside a baseline, measured in one run, written to bench-results/latest.json."""
