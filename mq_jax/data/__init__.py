"""From files to batches on devices: sources, decoding, the paper's augmentations, streams.

What is measured on images belongs to metrics/.
"""
