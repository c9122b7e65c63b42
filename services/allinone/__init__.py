"""The embedded profile: every service built in one process, on one event loop."""
