"""A file in chunks, and the hashes by which each is known."""
