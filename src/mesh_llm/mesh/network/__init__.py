"""Streams of frames over iroh, TLS or memory: what `transport.py` asks for, built in layers."""
