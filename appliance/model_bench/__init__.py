"""What a chat model of a running box can do, measured through its API: ``appliance models bench``."""
