"""Schema changes of the gateway, append-only."""
