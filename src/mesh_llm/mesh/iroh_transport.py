"""The door to iroh."""
