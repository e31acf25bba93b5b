"""What Anthropic clients send and expect: pure, no routing and no sockets."""
