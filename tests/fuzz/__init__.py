"""Fuzzing of the parsers of files from outside with atheris, each guided by what its code does with an input."""
