"""Pages: one folder of static files that opens from a disk, without a server.

``write.py`` writes the folder. What a store holds is text: it reaches a page only as a string of a
script (``scripts.py``), and the page shows it only as text (``assets/js/01_elements.js``).
"""
