"""Networks: codebooks and auto-encoders, as Flax modules."""
