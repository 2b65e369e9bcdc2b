"""A store and its copies: push one to a URL, pull one or a part of one, mend one from another.

Every file that moves is checked against the size and SHA-256 that the journal lists, and put
in place as a whole. What makes a file count comes behind the file: pushing writes data, then
the journal, then the manifest; pulling extends ``part.json`` when all its files are here. So
either can be stopped at any instant, is a valid store for whoever reads meanwhile, and goes on
when run again.
"""
