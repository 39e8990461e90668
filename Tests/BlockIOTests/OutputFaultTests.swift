import BlockIO
import Glibc
import TensorBasics
import TestSupport
import Testing

/// Files being written while system calls fail, each in a process of its own.
@Suite struct SystemCallFaultOutputTests {
  @Test(arguments: [false, true])
  func `A drive that refuses to keep a file leaves the old one, for good`(settles: Bool) async {
    await #expect(processExitsWith: .success) { [settles] in
      for name in ["old", "new"] {
        let folder = TemporaryFolder()
        defer { extendLifetime(folder) }
        folder.write("old", [1])
        let file = try OutputFile(path: "\(folder.path)/\(name)", reserving: 1, inputs: [])
        try file.write([2], at: 0)
        FaultPlan.begin(.sync, 0..<1, errno: EIO)
        let error = try #require(throws: BlockIOError.self) {
          if settles { try file.flushAndDropCache(0..<1) } else { try file.commit() }
        }
        #expect(error.errno == EIO)
        // The drive would take it now, but what it lost before it does not tell again.
        #expect(throws: error) { try file.commit() }
        #expect(throws: error) { try file.write([3], at: 0) }
        #expect(FaultPlan.end().refusalCount == 1)
        #expect(folder.entries == ["old"] && folder.read("old") == [1])
      }
    }
  }

  /// What a network file system reports at closing is no success.
  @Test func `A file that cannot be closed is not committed`() async {
    await #expect(processExitsWith: .success) {
      let folder = TemporaryFolder()
      defer { extendLifetime(folder) }
      for (call, index, errno) in [(FaultPlan.Call.sync, 1, EDQUOT), (.adjust, 0, EMFILE)] {
        let file = try OutputFile(path: folder.path + "/file", reserving: 1, inputs: [])
        try file.write([2], at: 0)
        FaultPlan.begin(call, index..<index + 1, errno: errno)
        let error = #expect(throws: BlockIOError.self) { try file.commit() }
        #expect(error?.errno == errno && FaultPlan.end().refusalCount == 1)
      }
      #expect(folder.entries.isEmpty)
    }
  }

  @Test(arguments: [false, true], [[], ["a"], ["b", "c"], ["a", "b", "c"]])
  func `A set of which one call is refused is all there, or as it was before`(
    refusesUnnamed: Bool, olds: [String]
  ) async {
    await #expect(processExitsWith: .success) { [refusesUnnamed, olds] in
      var refusalCount = 0
      for call in [FaultPlan.Call.rename, .sync, .inspect, .open] {
        for index in 0..<100 {
          let isRefused = try Self.writeSet(olds, refusesUnnamed, refusing: call, index)
          guard isRefused else { break }
          refusalCount += 1
        }
      }
      // Three files are synchronised, closed and named, and their folders synchronised.
      #expect(refusalCount >= 12, "\(refusalCount)")
    }
  }

  /// Writes three files, with one call refused once all are written; returns whether it was made.
  private static func writeSet(
    _ olds: [String], _ refusesUnnamed: Bool, refusing call: FaultPlan.Call, _ index: Int
  ) throws -> Bool {
    let names = ["a", "b", "c"]
    let folder = TemporaryFolder()
    defer { extendLifetime(folder) }
    for name in olds { folder.write(name, Array(name.utf8)) }
    var isRefused = false
    var isComplete = true
    do {
      if refusesUnnamed { FaultPlan.begin(.openUnnamed, 0..<1000, errno: EOPNOTSUPP) }
      let files = try names.map {
        try OutputFile(path: "\(folder.path)/\($0)", reserving: 1, inputs: [])
      }
      for file in files { try file.write([2], at: 0) }
      FaultPlan.begin(call, index..<index + 1, errno: EIO)
      do { try OutputFile.commit(files) } catch {
        isComplete = false
        #expect(error.errno == EIO)
      }
      isRefused = FaultPlan.end().refusalCount == 1
    }
    // A name that cannot be had in one way is had in another.
    #expect(isComplete == !isRefused || (isComplete && call == .rename))
    #expect(folder.entries == (isComplete ? names : olds), "\(call) \(index)")
    for name in isComplete ? names : olds {
      #expect(folder.read(name) == (isComplete ? [2] : Array(name.utf8)), "\(call) \(index)")
    }
    return isRefused
  }

  @Test(arguments: [1, 3])
  func `Whatever fails while files are written, they are whole, and the next ones are written`(
    memberCount: Int
  ) async {
    await #expect(processExitsWith: .success) { [memberCount] in
      let folder = TemporaryFolder()
      defer { extendLifetime(folder) }
      let input = folder.write("input", [1])
      let paths = (0..<memberCount).map { "\(folder.path)/\($0)" }
      let layout = StripeLayout(
        unitByteCount: 4, memberCount: memberCount, headerByteCount: 2, byteCount: 40)
      var version: UInt8 = 0
      var sweep = FaultSweep(FaultSweep.writing)
      sweep.trialLimit = 60
      let findings = try sweep.findings(
        isFitting: FaultSweep.namesErrno,
        residue: {
          let contents = (0..<memberCount).map { folder.read("\($0)") }
          let isWhole = Set(contents.map { $0.last ?? 0 }).count == 1
          return folder.entries + (isWhole ? [] : ["a mixture: \(contents)"])
        },
        {
          version += 1
          if version == .max { version = 1 }
          let output = try StripedOutput(paths: paths, layout: layout, inputs: [input])
          let bytes = [UInt8](repeating: version, count: 40)
          try bytes.withUnsafeBytes { try output.write($0, at: 0) }
          for member in 0..<memberCount where memberCount > 1 {
            try [version, version].withUnsafeBytes { try output.writeHeader($0, member: member) }
          }
          try output.flushAndDropCache(0..<40)
          try output.commit()
          return paths.indices.allSatisfy { folder.read("\($0)").last == version }
        })
      #expect(findings.isEmpty, "\(findings.joined(separator: "\n"))")
    }
  }

  /// Otherwise an output could be an input that was not seen.
  @Test func `Inputs that cannot be listed are an error, and none is replaced`() async {
    await #expect(processExitsWith: .success) {
      let (folder, model) = (TemporaryFolder(), TemporaryFolder())
      defer { extendLifetime((folder, model)) }
      let shard = model.write("shard", [4])
      link(shard, folder.path + "/out")
      for (call, index) in [(FaultPlan.Call.open, 0), (.inspect, 0), (.inspect, 1), (.inspect, 4)] {
        FaultPlan.begin(call, index..<index + 1, errno: EIO)
        let error = #expect(throws: BlockIOError.self) {
          try OutputFile(path: folder.path + "/out", reserving: 1, inputs: [model.path])
        }
        _ = FaultPlan.end()
        #expect(error != nil, "\(call) \(index)")
      }
      #expect(model.read("shard") == [4] && folder.entries == ["out"])
    }
  }
}
