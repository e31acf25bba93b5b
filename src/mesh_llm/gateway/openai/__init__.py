"""What OpenAI clients send and expect, an endpoint a file: pure, no routing and no sockets."""
