"""Which container may use which processors: the budget of a host of 16 cores, and its scaling to any other."""
