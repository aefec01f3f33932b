"""Implementations written to be reviewed: right ones in unusual forms, and wrong ones.

Every wrong one has one mistake, or two; its docstring is what a user would write, and says nothing
about the mistake. `cases` lists them with the findings that are right for each.
"""
