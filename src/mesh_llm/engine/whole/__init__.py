"""A whole model in one llama-server."""
