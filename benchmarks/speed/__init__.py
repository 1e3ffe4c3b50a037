"""Comparisons with other ways and libraries, and what only a GPU can tell."""
