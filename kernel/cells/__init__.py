"""Cells that run in another container than their kernel's: what is asked, what it may have, and the run itself."""
