"""The suite: which runs there are, what they must reach, and what they reached."""
