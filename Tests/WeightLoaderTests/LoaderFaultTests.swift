import BlockIO
import ModelFormat
import TensorBasics
import TestSupport
import Testing
import WeightLoader

/// Tensors streamed and loaded while the system refuses one thing.
private enum Loading {
  static func findings(
    _ sweep: FaultSweep, _ backend: StorageBackend,
    isFitting: (any Error, FaultSweep.Trial) -> Bool
  ) throws -> [String] {
    let folder = TemporaryFolder()
    defer { extendLifetime(folder) }
    let gguf = TinyModel().gguf(seed: 1).bytes()
    let paths = [
      folder.write("gguf", gguf), folder.write("image", try ImageBuilder.image(of: gguf)),
    ]
    return try sweep.findings(isFitting: isFitting) {
      var checksums: [UInt64] = []
      for path in paths {
        var options = LoaderOptions()
        options.backend = backend
        options.pieceByteCount = 1 << 14
        options.assumedResidentByteCount = 0
        let loader = try TensorLoader.open(path, ram: 8 << 20, options: options)
        try loader.stream { checksums.append($0.withBytes(Checksum.of)) }
        let loaded = try loader.load([TensorPart(0), TensorPart(1)])
        checksums += [0, 1].map { loaded.withBytes($0, Checksum.of) }
      }
      return checksums
    }
  }
}

@Suite struct SystemCallFaultLoaderTests {
  @Test(arguments: ["uring", "pread"])
  func `Whatever system call fails once, tensors come or it is said why`(backend: String) async {
    await #expect(processExitsWith: .success) { [backend] in
      let backend = try #require(StorageBackend(rawValue: backend))
      var calls: [FaultPlan.Call] = [.open, .inspect, .adjust, .read]
      calls +=
        backend == .uring
        ? [.makeRing, .registerFiles, .registerMemory, .submitReads, .awaitReads, .completeRead]
        : [.startThread]
      let findings = try Loading.findings(
        FaultSweep(calls), backend, isFitting: FaultSweep.namesErrno)
      #expect(findings.isEmpty, "\(findings.joined(separator: "\n"))")
    }
  }
}

@Suite struct AllocationFaultLoaderTests {
  @Test(arguments: ["uring", "pread", "mmap"])
  func `Whatever memory is refused once, a loader says so`(backend: String) async {
    await #expect(processExitsWith: .success) { [backend] in
      let backend = try #require(StorageBackend(rawValue: backend))
      let findings = try Loading.findings(FaultSweep([.allocate]), backend) { error, _ in
        switch error {
        case LoaderError.allocation: true
        case LoaderError.io(let error): error.operation == .allocate
        default: false
        }
      }
      #expect(findings.isEmpty, "\(findings.joined(separator: "\n"))")
    }
  }
}
