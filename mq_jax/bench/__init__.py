"""Timings: `python -m mq_jax.bench --help`."""
