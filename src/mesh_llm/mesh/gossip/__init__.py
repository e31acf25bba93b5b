"""Who lives, and what they say of themselves: machines that decide, and `gossiping.py`, their shell."""
