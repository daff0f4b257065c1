"""A trained model in use: encoding, decoding, token files, and exports that need no run."""
