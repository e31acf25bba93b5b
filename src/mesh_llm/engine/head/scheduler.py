"""Which sequences step next. Decides; `pipeline.py` acts."""
