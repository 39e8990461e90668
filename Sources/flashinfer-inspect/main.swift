print("flashinfer-inspect: not built yet")
