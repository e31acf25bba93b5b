"""What the node is doing, for people to look at, and the few verbs that change it, for who holds its key."""
