"""Who leads a split model when several nodes want it."""
