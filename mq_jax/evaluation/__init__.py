"""One pass over a set of images, and the protocol card that says how it was made."""
