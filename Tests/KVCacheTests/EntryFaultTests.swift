import Glibc
import KVCache
import TensorBasics
import TestSupport
import Testing

/// System calls that fail while an entry is made complete. A plan of faults holds for a whole process, so
/// each test has one of its own.
@Suite struct SystemCallFaultEntryTests {
  @Test func `An entry that the drive refuses to keep is not stored, whichever call says so`() async
  {
    await #expect(processExitsWith: .success) {
      let tokens = EntryMaker.tokens(300, seed: 1)
      for call in [FaultPlan.Call.write, .truncate, .sync, .rename] {
        var index = 0
        while true {
          let folder = TemporaryFolder()
          let maker = EntryMaker(
            directory: try KeyValueDirectory(path: folder.path, byteLimit: 1 << 30))
          FaultPlan.begin(call, index..<(index + 1), errno: EIO)
          let outcome = Result { try maker.store(tokens) }
          guard FaultPlan.end().refusalCount == 1 else { break }
          #expect(throws: (any Error).self, "\(call) \(index)") { try outcome.get() }
          #expect(maker.found(tokens) == 0, "\(call) \(index)")
          #expect(folder.entries.allSatisfy { !$0.contains(".part") }, "\(folder.entries)")
          try maker.store(tokens)
          #expect(maker.found(tokens) == 256, "\(call) \(index)")
          index += 1
        }
        // The file and its folder are handed to the drive, tables and header are written.
        #expect(index == (call == .sync || call == .write ? 2 : 1), "\(call) \(index)")
      }
    }
  }
}
