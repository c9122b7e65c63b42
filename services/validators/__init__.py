"""Validators of values, in a process and an environment of their own: guardrails-ai's and a few of ours."""
