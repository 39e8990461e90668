// TestSupport: see README.md
