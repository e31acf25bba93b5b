"""Split models: who leads one, who holds which layers, how the stages are linked over the mesh."""
