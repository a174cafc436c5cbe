"""Faults on purpose: what plays them, and what counts what survived."""
