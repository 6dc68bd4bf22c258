"""Snapshots of containers: taken, listed, compared, gone back to."""
