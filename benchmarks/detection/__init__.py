"""Faults are put into short trainings: which detector notices which? `make detection` fills docs/detection.md."""
