"""Children that compute, and their keeper. Knows no peers, no HTTP routes, no console."""
