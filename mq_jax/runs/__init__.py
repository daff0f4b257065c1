"""The folder of a run: what is in it, who may write to it, and how its files are read back.

What the files mean to a model or to an evaluation belongs elsewhere.
"""
