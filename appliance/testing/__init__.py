"""Conformance checks, the fakes that pass them, and real processes for tests. Never imported by the product."""
