"""The fingerprint of a machine: a short deterministic training, kept step by step and layer by layer, and compared."""
