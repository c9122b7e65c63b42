"""Validators, version 1."""
