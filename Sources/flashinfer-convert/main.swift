print("flashinfer-convert: not built yet")
