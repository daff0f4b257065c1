"""Suites: each file's get_suite says which experiments are compared, on which budget."""
