// ModelConversion: see README.md
