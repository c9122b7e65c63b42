"""Chat turns, version 1."""
