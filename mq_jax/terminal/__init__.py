"""What a person sees while something runs: log lines, progress, tables, suggestions.

What is left in files for later belongs to runs/ or report/.
"""

from etils import epy as _epy

with _epy.lazy_api_imports(globals()):
    from mq_jax.terminal.console import (
        ImageBar,
        Progress,
        image_progress,
        log_to_file,
        log_to_terminal,
        print_table,
    )
    from mq_jax.terminal.escaping import Block, shell_word, visible
    from mq_jax.terminal.spelling import suggestion
    from mq_jax.terminal.streams import protect_streams, tell
    from mq_jax.terminal.tally import Tally
