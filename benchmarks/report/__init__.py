"""Records shown to people and to other programs: no torch."""
