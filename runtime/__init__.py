"""The engine: images, containers and snapshots. Imports nothing of Jupyter."""
