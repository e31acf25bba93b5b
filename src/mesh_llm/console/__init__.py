"""What the node is doing, for people to look at. Changes nothing; no part knows of it."""
