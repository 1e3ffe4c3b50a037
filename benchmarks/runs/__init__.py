"""One run on its way from the plan to its record."""
