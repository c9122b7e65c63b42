"""Contracts of validators."""
