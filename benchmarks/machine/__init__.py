"""The device, its state during a run, its hardware limits and its failures."""
