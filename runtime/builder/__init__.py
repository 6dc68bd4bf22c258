"""Building images: from a Containerfile, or from the files that describe an environment."""
