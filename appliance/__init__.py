"""The box as a library: everything that services share. Imports nothing from ``services``."""
