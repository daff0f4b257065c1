"""What is measured, as pure functions and mergeable collections.

A pass over a set, which fills them, belongs to evaluation/.
"""
