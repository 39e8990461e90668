// CommandLineSupport: see README.md
