"""The paper: the bi-level engine, its steps, the objective, losses, optimizers, the state.

Pure functions of arrays, modules and numbers; no configuration, no files.
"""
