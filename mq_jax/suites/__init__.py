"""Suites of trainings: what is to be run, running it, and the tables over what was run.

How one run trains belongs to training/, how it is read back to runs/ and report/.
"""

from etils import epy as _epy

with _epy.lazy_api_imports(globals()):
    from mq_jax.suites.suite import Suite, read_suite
