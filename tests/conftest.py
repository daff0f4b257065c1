"""Eight virtual CPU devices for the whole suite, set before JAX starts its backend."""

import os

os.environ["JAX_NUM_CPU_DEVICES"] = "8"
os.environ["JAX_PLATFORMS"] = "cpu"
