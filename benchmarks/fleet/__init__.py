"""Many devices, one table: which of them is odd, why, and what to do with it. Needs no torch."""
