"""The smoke tests of an installed box: runner and report. The journeys themselves are numbered files in ``smoke-tests/``."""
