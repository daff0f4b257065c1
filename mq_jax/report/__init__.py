"""The report: one HTML file on a run, or on several beside one another.

It reads files alone; what computes them belongs elsewhere.
"""

from etils import epy as _epy

with _epy.lazy_api_imports(globals()):
    from mq_jax.report.page import is_report, write_report
