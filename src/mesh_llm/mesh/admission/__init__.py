"""Who may be in: certificates, invites, expulsions, and what they look like on the wire. Decides only."""
