"""Nodes that know, trust and reach one another."""
