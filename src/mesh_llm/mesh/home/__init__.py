"""What a member keeps in its home: the key, the ledger, and that it runs."""
