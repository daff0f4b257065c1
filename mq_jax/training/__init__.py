"""From a configuration to a trained state: checks, parts, the compiled step, the loop.

The mathematics belongs to algorithm/.
"""
