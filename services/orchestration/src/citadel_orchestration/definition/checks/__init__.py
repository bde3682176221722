"""What can be wrong with a definition; each module checks one kind of thing and reports all it finds."""
