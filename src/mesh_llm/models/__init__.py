"""Model files: named, found, fetched, verified, read. Knows of no engine and no peer."""
