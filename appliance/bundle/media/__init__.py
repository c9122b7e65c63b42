"""Bundles on their way: parts for media, deltas, and putting both together again."""
