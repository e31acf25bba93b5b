"""Splits on GPUs: what `bench.split` compares on one machine's cores, one stage to a card."""
