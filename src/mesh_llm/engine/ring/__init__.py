"""The ring that a split model's hidden states go round: frames, and reading them off a socket."""
