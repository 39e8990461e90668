// KVCache: see README.md
