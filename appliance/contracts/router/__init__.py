"""Chat turns."""
