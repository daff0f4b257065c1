"""Experiments: each file's get_config returns the base with what differs."""
