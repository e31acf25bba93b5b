"""Tells in a model's own words what it thinks, what it says, and which tools it calls. Pure.

Counterpart: llama.cpp's common/parsers/*.cpp and chat-auto-parser-generator.cpp, which parse an answer anew
for each piece that it grows by; these parsers read it once.
"""
