"""Measurements that print the tables of docs/benchmarks.md: ratios of medians, candidates alternating."""
