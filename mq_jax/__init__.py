"""Meta-Quantization: vector-quantized auto-encoders trained on two levels, in JAX."""
