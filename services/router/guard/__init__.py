"""Guardrails in the way of a turn. What they look for is ``appliance.guard``; the port is ``appliance.contracts.guard.v1``."""
