import Runtime

/// Version of the binary interface; see `flashinfer.h`.
@c(flashinfer_abi_version)
public func abiVersion() -> UInt32 { 1 }
