"""Whether what Citadel stands on is there: one probe per dependency, all at once, within one deadline."""
