"""The adapters that there are: found, described from what lies beside them, ranked and compared."""
