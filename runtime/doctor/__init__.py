"""What this machine lets nbhull do, tried for real, and the exact line that mends what it refuses."""
