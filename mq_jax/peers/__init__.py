"""Tokenizers of other people: what their files call the arrays of a net, and what net they are of.

Either way: tables are read from left to right to take weights in, from right to left to give them.
"""

from etils import epy as _epy

with _epy.lazy_api_imports(globals()):
    from mq_jax.peers.names import FORMATS, Names, tensors
    from mq_jax.peers.net import Net
