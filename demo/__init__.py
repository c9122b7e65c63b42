"""The demo library: invented documents and questions. Build-time code; nothing in the box imports it."""
