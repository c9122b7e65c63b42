"""Registered Python functions: what their authors import."""
