"""Values everybody speaks. Imports nothing of ours and touches no world."""
