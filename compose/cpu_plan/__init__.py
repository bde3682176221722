"""Processors of each container: the budget of a host with 16 cores, and its scaling to other hosts."""
