"""The page: sections of plots, pictures and tables, in one file that asks for no other."""

import datetime
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jinja2
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from mq_jax.evaluation.code_use import codebook_of, codes_in_words
from mq_jax.evaluation.protocol import unlike
from mq_jax.report import tables
from mq_jax.report.codes import too_few
from mq_jax.report.evaluations import others_table, pictured
from mq_jax.report.names import METRICS, number
from mq_jax.report.pictures import pictures
from mq_jax.report.runs import Run, monitor_of, read_runs
from mq_jax.report.sections import plotted
from mq_jax.runs.stages import is_prior
from mq_jax.runs.standing import FIRST
from mq_jax.storage.files import write_atomically

# In which every page has its title.
_HEAD_BYTES = 2**16

# Without them a page has less.
_PARTS = {
    **dict.fromkeys(("tiles", "overview", "pictured", "unlike", "ailments", "notices"), ()),
    **dict.fromkeys(("sections", "configuration"), ()),
    **dict.fromkeys(("differing", "others", "pictures", "environment", "protocol", "cost"), None),
    "source": "",
}


class Key(NamedTuple):
    """What a colour stands for, in the line at the top of a page."""

    name: str


class Tile(NamedTuple):
    """A headline number."""

    label: str
    value: str
    note: str


def write_report(folders: Sequence[pathlib.Path], output: pathlib.Path) -> None:
    """Writes one self-contained HTML file on a run, or on several beside one another.

    What a folder lacks becomes a line in the page that names the command that makes it.

    Args:
      folders: of runs, each with its config.json.
      output: the file; its folder is created, a file that is there is replaced as a whole.

    Raises:
      FileNotFoundError: a folder has no config.json.
      ValueError: a config.json is damaged, a folder is named twice, or none is.
      OSError: the file cannot be written.
    """
    text = _page(read_runs([pathlib.Path(folder) for folder in folders]))
    output = pathlib.Path(output)
    if output.is_dir():
        raise IsADirectoryError(f"The report {output} is a folder; expected the name of a file.")
    output.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(output, text)


def is_report(path: pathlib.Path) -> bool:
    """Whether a file is a page that write_report made, or empty.

    Args:
      path: of a file.

    Returns:
      What its beginning tells.
    """
    with open(path, "rb") as file:
        start = file.read(_HEAD_BYTES)
    ours = start.startswith(b"<!DOCTYPE html>") and b" mq_jax report</title>" in start
    return ours or not start


def render_page(**parts: Any) -> str:
    """The page with what is given of its parts; the others are left out.

    Args:
      parts: variables of page.html.jinja: title, subtitle, date, runs (each with a name), and any
        of _PARTS.

    Returns:
      HTML that asks for no other file.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mq_jax", "report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.get_template("page.html.jinja")
    return template.render({**_PARTS, **parts}, plotly=Markup(get_plotlyjs()))


def _page(runs: Sequence[Run]) -> str:
    several = len(runs) > 1
    return render_page(
        title=f"{len(runs)} runs compared" if several else runs[0].name,
        subtitle=", ".join(run.name for run in runs) if several else _in_words(runs[0]),
        date=datetime.date.today().isoformat(),
        runs=runs,
        tiles=[] if several else _tiles(runs[0]),
        source="" if several else tables.evaluated(runs[0])[1],
        differing=tables.differing_table(runs),
        overview=_overview(runs) if several else [],
        others=others_table(runs),
        pictured=pictured(runs),
        unlike=_unlike(runs),
        ailments=[(run.name if several else "", told) for run in runs if (told := too_few(run))],
        notices=[(run.name if several else "", notice) for run in runs for notice in run.notices],
        pictures=pictures(runs),
        sections=plotted(runs),
        configuration=_configuration(runs),
        environment=_fields("Packages and devices", runs, tables.environment_fields),
        protocol=_fields("Protocol of the evaluation", runs, tables.protocol_fields),
        cost=tables.cost_table(runs),
    )


def _in_words(run: Run) -> str:
    config = run.config
    if is_prior(config):
        return f"Prior, {config['prior.kind']}, of size {config['prior.size']}"
    codes = codes_in_words(codebook_of(config))
    return (
        f"{config['model.kind'].upper()} on {config['data.source']} at "
        f"{config['data.image_size']} pixels, quantizer {config['quantizer.kind']} of "
        f"{config['codebook.dim']} channels, each code one of {codes}, "
        f"hyper-gradient {config['train.hypergradient']}"
    )


def _tiles(run: Run) -> list[Tile]:
    """The headline: the best step and its metrics."""
    values, _ = tables.evaluated(run)
    tiles = []
    if run.best is not None:
        monitor = monitor_of(run.config)
        by = METRICS[monitor].label if monitor in METRICS else monitor
        last = f"of {run.rows[-1]['step']:,}, by {by}"
        if run.best["step"] >= run.settled > FIRST:
            last += f", from {run.settled:,} on"
        tiles.append(Tile("Best step", f"{run.best['step']:,}", last))
    for name, metric in METRICS.items():
        if values.get(name) is not None:
            way = "higher is better" if metric.better > 0 else "lower is better"
            if name in ("usage", "perplexity"):
                way = "of the codes" if name == "usage" else f"of {_all_codes(run):,}"
            tiles.append(Tile(metric.label, number(name, values[name]), way))
    return tiles


def _all_codes(run: Run) -> int:
    """J K: those that a position may have, each of the J counted apart."""
    codebook = codebook_of(run.config)
    return codebook.codes * codebook.size


def _overview(runs: Sequence[Run]) -> list[tables.Table]:
    """Metrics side by side: of the evaluations, and of the best and last step of training."""
    found = []
    for title, of_run in (
        ("From evaluation.json", tables.measured_metrics),
        ("During training, at the best step", tables.best_metrics),
        ("During training, at the last evaluation", tables.last_metrics),
    ):
        found.append(tables.metrics_table(title, runs, [of_run(run) for run in runs]))
    return [table for table in found if len(table.heads) > 2]


def _unlike(runs: Sequence[Run]) -> list[str]:
    """Where the protocols of the evaluations differ."""
    cards = {run.name: run.evaluation for run in runs if run.evaluation is not None}
    return unlike(cards) if len(cards) > 1 else []


def _configuration(runs: Sequence[Run]) -> list[tuple[tables.Table, bool]]:
    """Tables of configuration fields, and whether each is open from the start."""
    found = []
    for run in runs:
        whole, changed = tables.configuration_tables(run)
        of_run = f", {run.name}" if len(runs) > 1 else ""
        for table in (changed, whole):
            if table is not None:
                titled = table._replace(title=f"{table.title}{of_run}")
                found.append((titled, table is changed and len(runs) == 1))
    return found


def _fields(title: str, runs: Sequence[Run], of_run) -> tables.Table | None:
    """A table of what is known of runs, or None where nothing is."""
    table = tables.comparison_table(title, runs, of_run)
    return table if table.rows else None
