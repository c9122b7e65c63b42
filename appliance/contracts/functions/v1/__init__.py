"""Registered Python functions, version 1."""
