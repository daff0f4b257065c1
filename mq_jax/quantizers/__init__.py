"""What turns z into codes: lookups, straight-through estimators, codebooks, code statistics.

Usable alone; nothing here knows of images, losses or training.
"""
