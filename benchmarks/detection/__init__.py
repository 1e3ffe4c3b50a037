"""Fault injection into short trainings: which detector finds which fault? `make detection` fills docs/detection.md."""
