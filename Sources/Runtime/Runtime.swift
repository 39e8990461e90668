// Runtime: see README.md
