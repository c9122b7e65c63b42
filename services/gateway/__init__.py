"""The edge: HTTP, WebSocket, OpenAI API, threads, limits, the page."""
