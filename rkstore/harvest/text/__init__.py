"""Where a harvest's documents come from. One file for each kind of source.

``files.py`` reads plain text files, ``dataset.py`` the rows of a dataset, ``arrays.py`` token ids
in NumPy files, ``python.py`` the text that ships with Python. ``open.py`` decides between them;
each gives a :class:`~rkstore.harvest.text.documents.Text`.
"""
