"""What is copied into the container of a cell, and runs there."""
