"""Compares the devices of a fleet: which are odd, why, and what to do with each. Does not import torch."""
