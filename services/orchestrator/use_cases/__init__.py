"""What the orchestrator does for its callers: the contracts' Protocols, rights checked, on one replica."""
