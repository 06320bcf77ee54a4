"""Workflows: what the work is. `plan.py` decides and is pure, `handler.py` does the I/O."""
