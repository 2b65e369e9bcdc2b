"""A store and its copies: push one to a URL, pull one or a part of one, repair one from another.

Every transferred file is checked against the size and SHA-256 in the journal, and put in place
atomically. A file is written before the metadata that lists it: pushing writes data, then the
journal, then the manifest; pulling extends ``part.json`` when all its files have arrived. So
either can be stopped at any time, leaves a valid store for readers, and continues when run again.
"""
