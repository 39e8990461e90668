import BlockIO
import Glibc
import ModelConversion
import TensorBasics
import TestSupport
import Testing
import WeightLoader

/// A conversion, onto one file or several, while the system refuses one thing.
private enum Conversion {
  static func findings(
    _ sweep: FaultSweep, memberCount: Int,
    isFitting: (any Error, FaultSweep.Trial) -> Bool
  ) throws -> [String] {
    let folder = TemporaryFolder()
    defer { extendLifetime(folder) }
    let path = folder.write("model", TinyModel().gguf(seed: 1).bytes())
    let names = (0..<memberCount).map { "image-\($0)" }
    let paths = names.map { "\(folder.path)/\($0)" }
    var expected: [[UInt8]] = []
    return try sweep.findings(
      isFitting: isFitting,
      residue: {
        // After a trial the images are there as the run before left them, or not at all.
        let isWhole =
          names.allSatisfy { folder.read($0) == [9] } || names.map(folder.read) == expected
        return folder.entries + (isWhole ? [] : ["a mixture"])
      },
      {
        for name in names { folder.write(name, [9]) }
        let source = try ModelSource.open(
          path, backend: .pread, records: WeightRecords(folder: nil))
        let striping =
          memberCount == 1
          ? nil
          : try Striping(path: paths[0], otherPaths: Array(paths.dropFirst()), unitByteCount: 8192)
        try Converter(source).write(to: paths[0], striping: striping)
        expected = names.map(folder.read)
        return expected
      })
  }
}

@Suite struct SystemCallFaultConversionTests {
  @Test(arguments: [1, 2])
  func `Whatever system call fails once, an image is whole or as it was before`(
    memberCount: Int
  ) async {
    await #expect(processExitsWith: .success) { [memberCount] in
      var sweep = FaultSweep(FaultSweep.writing + [.read, .startThread])
      sweep.trialLimit = 100
      let findings = try Conversion.findings(
        sweep, memberCount: memberCount, isFitting: FaultSweep.namesErrno)
      #expect(findings.isEmpty, "\(findings.joined(separator: "\n"))")
    }
  }
}

@Suite struct AllocationFaultConversionTests {
  @Test(arguments: [1, 2])
  func `Whatever memory is refused once, a conversion says so and leaves what was there`(
    memberCount: Int
  ) async {
    await #expect(processExitsWith: .success) { [memberCount] in
      let findings = try Conversion.findings(
        FaultSweep([.allocate]), memberCount: memberCount
      ) { error, _ in
        switch error {
        case ConversionError.allocation, ConversionError.loader(.allocation),
          LoaderError.allocation:
          true
        case LoaderError.io(let error), ConversionError.loader(.io(let error)):
          error.operation == .allocate
        default: false
        }
      }
      #expect(findings.isEmpty, "\(findings.joined(separator: "\n"))")
    }
  }
}
