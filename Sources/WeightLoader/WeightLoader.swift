// WeightLoader: see README.md
