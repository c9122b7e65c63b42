"""Schema changes of schema-guided answers, append-only."""
