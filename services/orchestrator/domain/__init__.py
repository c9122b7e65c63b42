"""The pure part of the orchestrator: ``decide(state, command) -> events`` and ``apply(state, event) -> state``. No IO, no clock, no randomness."""
