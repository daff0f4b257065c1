"""Meta-Quantization: vector-quantized auto-encoders trained on two levels, in JAX."""

__all__ = ["load_tokenizer"]


def __getattr__(name):
    """`from mq_jax import load_tokenizer`, at no cost for who only imports the package."""
    if name == "load_tokenizer":
        from mq_jax.tokenizers.tokenizer import load_tokenizer

        return load_tokenizer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
