"""Checkpoints of other software: what is in them, and what it is called here."""
