"""Every object of the package with every option of Keras, each cell held to the oracle.

`subjects.py` lists the objects, `options.py` the options: a new one of either is one entry, and
the cells are their product. `cells.py` runs a cell and says how it ended; `page.py` prints all of
them as docs/combinations.md. `python -m tests.keras_impl.combinations --write` makes the page.
"""
