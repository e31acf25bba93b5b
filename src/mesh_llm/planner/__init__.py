"""What fits where: one frozen view in, one plan out. Touches no world."""
