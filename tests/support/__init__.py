"""Helpers for tests: what the machine offers, what a run leaves behind, waiting, stores."""
