"""What the kernel tells of the control group that the process runs in."""
