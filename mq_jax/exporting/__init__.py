"""Trained models as files that need neither the run nor its configuration."""

from mq_jax.exporting.contents import Export, coding_of, downsampling, make_export
from mq_jax.exporting.reading import read_export
from mq_jax.exporting.writing import write_export

__all__ = ["Export", "coding_of", "downsampling", "make_export", "read_export", "write_export"]
