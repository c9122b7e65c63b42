"""Documents into Markdown, each in a worker process with limits; nothing here trusts a file."""
