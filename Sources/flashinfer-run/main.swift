print("flashinfer-run: not built yet")
