"""Of which images the pictures and numbers of a run are, and its evaluations of others."""

from collections.abc import Sequence

from mq_jax.evaluation.named import told
from mq_jax.report.names import METRICS, number
from mq_jax.report.runs import Run
from mq_jax.report.tables import Cell, Table
from mq_jax.terminal.escaping import visible


def pictured(runs: Sequence[Run]) -> list[str]:
    """What the pictures and the codes of runs are of: step, set, split and number of images.

    Args:
      runs: those without a snapshot are left out.

    Returns:
      A sentence for each, with the run's name where there are several.
    """
    sentences = []
    for run in runs:
        if run.snapshot is None:
            continue
        start = f"{run.name}: " if len(runs) > 1 else "Pictures and codes: "
        about = visible(run.snapshot.about) or "images that its file, an older one, does not name"
        sentences.append(f"{start}step {run.snapshot.step:,}, {about}.")
    return sentences


def others_table(runs: Sequence[Run]) -> Table | None:
    """The evaluations of other images than a run's own, and of other steps than its best.

    Args:
      runs: any.

    Returns:
      A Table, or None where there is none.
    """
    found = [(run, name, card) for run in runs for name, card in run.others.items()]
    if not found:
        return None
    values = [card["metrics"] for _, _, card in found]
    names = [name for name in METRICS if any(own.get(name) is not None for own in values)]
    rows = []
    for run, name, card in found:
        title = visible(f"{run.name}/{name}" if len(runs) > 1 else name)
        cells = [title, f"{card['run']['step']:,}", visible(told(card))]
        cells += [number(metric, card["metrics"].get(metric)) for metric in names]
        rows.append([Cell(text) for text in cells])
    heads = ["", "step", "images", *(METRICS[name].label for name in names)]
    return Table("Other evaluations", heads, rows)
