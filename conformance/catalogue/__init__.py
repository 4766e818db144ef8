"""The vectors by subject: each module yields some of them, made from seeds, with the code that a decoder must answer."""
