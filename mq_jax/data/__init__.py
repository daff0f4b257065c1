"""The data layer: sources of images, the paper's augmentations, batches. Knows no config."""
