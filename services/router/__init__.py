"""From a question to the model that answers it, with its sources: the chat path."""
