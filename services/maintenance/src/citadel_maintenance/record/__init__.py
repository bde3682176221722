"""The record of runs: retention, and advice for its tables."""
