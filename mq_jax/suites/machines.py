"""On which machines the runs of a suite were made, and how long they took there."""

from mq_jax.report.tables import environment_fields
from mq_jax.suites.results import Result, Results
from mq_jax.terminal.escaping import visible


def unlike_machines(results: Results) -> str:
    """Whether seconds of the runs compare.

    Args:
      results: of a suite.

    Returns:
      A sentence on which entries were run where; "" where all were on machines of one kind.
    """
    found: dict[str, dict[str, None]] = {}
    for run in results.runs:
        if machine := _machine(run):
            found.setdefault(machine, {})[visible(run.entry)] = None
    if len(found) < 2:
        return ""
    told = "; ".join(f"{machine}: {', '.join(entries)}" for machine, entries in found.items())
    return f"Seconds of unlike machines do not compare ({told})."


def hours(results: Results, entry: str = "") -> str:
    """The hours of all processes that have ended, failed ones and timings too.

    Args:
      results: of a suite.
      entry: of it; "": all, those without a run too.

    Returns:
      A number, with ≥ before it where of a run nothing tells; "" where nothing is known.
    """
    known = [results.spent[entry]] if entry else list(results.spent.values())
    unknown = any(
        run.wall_seconds is None for run in results.runs if not entry or run.entry == entry
    )
    told = [seconds for seconds in known if seconds is not None]
    return f"{'≥ ' if unknown else ''}{sum(told) / 3600:,.2f}" if told else ""


def _machine(run: Result) -> str:
    """Its devices in words; cores where they are what computes; "" where nothing tells."""
    fields = environment_fields(run.run) or {}
    kind = fields.get("devices.kind")
    if kind is None:
        return ""
    cores = f" of {fields['cores']} cores" if kind == "cpu" and "cores" in fields else ""
    return visible(f"{fields.get('devices.count', 1)} x {kind}{cores}")
