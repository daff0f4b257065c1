"""Meta-Quantization: vector-quantized auto-encoders trained on two levels, in JAX."""

from etils import epy as _epy

with _epy.lazy_api_imports(globals()):
    from mq_jax.samplers.sampler import load_prior
    from mq_jax.tokenizers.imported import import_tokenizer
    from mq_jax.tokenizers.tokenizer import load_tokenizer
    from mq_jax.tokenizers.tokens import read_tokens
