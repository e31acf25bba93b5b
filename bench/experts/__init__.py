"""What cuts of experts cost in quality."""
