"""Limits and usage of the control group (cgroup) that the process runs in."""
