"""The OpenAI-compatible face of a node: it routes, queues, forwards and mends; it knows no engine process."""
