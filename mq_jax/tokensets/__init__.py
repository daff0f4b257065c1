"""Token sets: the codes of a whole data set under random access, and batches read back from them.

Codes of the files of one folder, under their names, belong to tokenizers/.
"""

from etils import epy as _epy

with _epy.lazy_api_imports(globals()):
    from mq_jax.tokensets.making import Made, make_token_set
    from mq_jax.tokensets.reading import TokenSet, open_tokens
    from mq_jax.tokensets.record import Item
    from mq_jax.tokensets.shards import Spec
    from mq_jax.tokensets.stream import token_batches, token_stream
