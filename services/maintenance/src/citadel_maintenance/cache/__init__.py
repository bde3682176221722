"""The embedding cache: what goes, and what stays."""
