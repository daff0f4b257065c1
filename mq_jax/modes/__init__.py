"""What the programs do, from a command line and folders to an exit code; a file for each mode.

Nothing is computed here that a package below could compute. No public API.
"""
