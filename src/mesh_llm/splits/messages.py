"""What nodes say to each other to set up a split model."""
