"""A trained model in use: encoding and decoding, token files, exports that need no run.

Their command lines belong to modes/.
"""

from etils import epy as _epy

with _epy.lazy_api_imports(globals()):
    from mq_jax.tokenizers.export import Export, make_export
    from mq_jax.tokenizers.export_reading import read_export
    from mq_jax.tokenizers.export_writing import write_export
    from mq_jax.tokenizers.imported import import_tokenizer
    from mq_jax.tokenizers.programs import read_program
    from mq_jax.tokenizers.shards import Tokens
    from mq_jax.tokenizers.tokenizer import Tokenizer, load_tokenizer
    from mq_jax.tokenizers.tokens import read_names, read_tokens
