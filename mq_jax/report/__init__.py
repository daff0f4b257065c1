"""The report: one HTML file on a run, or on several beside one another."""

from mq_jax.report.page import write_report

__all__ = ["write_report"]
