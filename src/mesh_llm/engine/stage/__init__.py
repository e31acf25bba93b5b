"""A range of layers in a child process."""
