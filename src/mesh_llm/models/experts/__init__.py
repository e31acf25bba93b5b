"""Cuts of a mixture of experts: which experts are best, and files of the model that have only those."""
