// Tokenization: see README.md
