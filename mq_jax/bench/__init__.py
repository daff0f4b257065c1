"""Timings, and hyper-gradients compared: `python -m mq_jax.bench --help`. No public API.

What a run would take, without running it, belongs to planning/.
"""
