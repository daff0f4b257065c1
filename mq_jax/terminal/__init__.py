"""What a person sees while something runs: log lines, progress, tables.

What is left in files for later belongs to runs/ or report/.
"""
