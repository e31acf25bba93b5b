"""How fast tokens go through weights on this machine."""
