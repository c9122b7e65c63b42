"""Chat models: the reader, any OpenAI endpoint."""
