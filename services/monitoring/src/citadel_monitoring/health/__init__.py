"""Health checks of Citadel's dependencies: one probe each, all at once, within one deadline."""
