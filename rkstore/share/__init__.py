"""A store and its copies: push one to a URL, pull one or a part of one, repair one from another.

Every file that moves is checked against the size and SHA-256 that the journal lists, and put
in place as a whole. What declares a file is written after it: pushing writes data, then the
journal, then the manifest; pulling extends ``part.json`` when all its files have arrived. So
either can be stopped at any time, leaves a valid store for readers, and continues when run again.
"""
