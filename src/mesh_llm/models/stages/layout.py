"""What a stage file holds and where each of its bytes comes from."""
