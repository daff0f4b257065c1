"""What a run would take: FLOPs, memory and traffic of its compiled step; nothing runs.

What a step did take belongs to bench/.
"""

from etils import epy as _epy

with _epy.lazy_api_imports(globals()):
    from mq_jax.planning.plan import Plan, make_plan, use_virtual_devices
    from mq_jax.planning.tables import print_plan
