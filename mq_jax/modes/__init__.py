"""What the program does under each --mode, from a configuration and folders to an exit code."""
