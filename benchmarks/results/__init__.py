"""Records, gates and comparisons: no torch, no data, no GPU."""
