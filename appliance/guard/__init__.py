"""What guardrails look for in text, and whose policy says what to do about it. Pure; streams and turns are in ``services/router/guard``."""
