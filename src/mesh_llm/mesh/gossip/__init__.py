"""Who lives, and what they say of themselves: machines that decide, inside the shell `gossiping.py`."""
