"""Rows → chunks → files, one writer at a time, safe from crashes."""
