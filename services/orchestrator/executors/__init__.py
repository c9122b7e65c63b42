"""The box's own executors: registered functions, the local chat model, specialised models. Each is an ``ExecutorAdapter`` (``ports``)."""
