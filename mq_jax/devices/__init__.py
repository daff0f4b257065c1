"""Devices and processes: the mesh, what processes tell one another, signals, caches.

Nothing here knows of images, models or runs.
"""
