"""From the plan to the record of each run."""
