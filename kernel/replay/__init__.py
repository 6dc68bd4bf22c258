"""Cells run again in a fresh container, and what came out compared with what came out before."""
