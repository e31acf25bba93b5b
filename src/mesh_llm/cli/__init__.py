"""What a person types, and what they see. Each command calls one verb of the node or of a part."""
