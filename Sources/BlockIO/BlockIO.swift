// BlockIO: see README.md
