"""Evaluations as a table on the terminal."""

from collections.abc import Mapping

# What is measured, its head in a table, and how its values are written.
COLUMNS = {
    "mse": ("MSE on [-1, 1]", "{:.4f}"),
    "psnr": ("PSNR, dB", "{:.2f}"),
    "ssim": ("SSIM", "{:.4f}"),
    "lpips_alex": ("LPIPS alex", "{:.4f}"),
    "lpips_vgg": ("LPIPS vgg", "{:.4f}"),
    "fid": ("rFID", "{:.3f}"),
    "frechet_vgg": ("Fréchet VGG", "{:.3f}"),
    "usage": ("usage", "{:.1%}"),
    "perplexity": ("perplexity", "{:.1f}"),
}


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
    names = [name for name in COLUMNS if any(prefix + name in row for row in rows.values())]
    cells = [
        [title, *[_cell(row, prefix + name, COLUMNS[name][1]) for name in names]]
        for title, row in rows.items()
    ]
    return ["", *[COLUMNS[name][0] for name in names]], cells


def _cell(row, name, form):
    # A value that is not finite is null in a file.
    return "-" if name not in row or row[name] is None else form.format(row[name])
