"""Collections of points: storing and searching."""
