"""Compares two environments or images that take turns on one device, and finds the packages at fault."""
