print("flashinfer-bench: not built yet")
