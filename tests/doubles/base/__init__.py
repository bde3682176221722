"""The parts that all doubles share."""
