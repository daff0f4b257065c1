"""Evaluations as a table on the terminal."""

from collections.abc import Mapping

from mq_jax.report.names import METRICS

# Errors first, then what they are made with.
ORDER = (
    *("mse", "psnr", "ssim", "lpips_alex", "lpips_vgg", "fid", "gfid", "sfid", "frechet_vgg"),
    *("inception_score", "precision", "recall", "precision_vgg", "recall_vgg"),
    *("usage", "perplexity"),
    *("nats_per_token", "bits_per_token", "nats_per_pixel", "bits_per_pixel"),
)


def evaluation_table(
    rows: Mapping[str, Mapping[str, float]], prefix: str = "eval/"
) -> tuple[list[str], list[list[str]]]:
    """Columns and cells of evaluations.

    Args:
      rows: values by prefixed name, by the name of an evaluation.
      prefix: of the names in a row.

    Returns:
      The heads of the columns that some row has, and the cells by row; "-" where one has none.
    """
    names = [name for name in ORDER if any(prefix + name in row for row in rows.values())]
    cells = [
        [title, *[_cell(row, prefix + name, METRICS[name].form) for name in names]]
        for title, row in rows.items()
    ]
    return ["", *[METRICS[name].label for name in names]], cells


def _cell(row, name, form):
    # A value that is not finite is null in a file.
    return "-" if name not in row or row[name] is None else form.format(row[name])
