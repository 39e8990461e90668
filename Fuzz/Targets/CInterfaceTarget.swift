import CFlashInfer
import FlashInferC
import Glibc
import Synchronization

extension FuzzTarget {
  /// The C interface as a state machine: the input is a sequence of calls, of one byte for the
  /// function and a few for its arguments, on small files made at the start.
  static let cInterface = FuzzTarget(
    name: "c-interface", inputByteLimit: 128, seeds: { CInterfaceTarget.seeds },
    run: CInterfaceTarget.run)
}

/// What must hold of any sequence of calls: statuses that the header allows, errors that say
/// something, handles and lent memory as they were promised, and nothing that ends the program.
enum CInterfaceTarget {
  /// One input at a time: a model stays open over all of them.
  private static let turn = Mutex(())

  static func run(_ input: UnsafeRawBufferPointer) throws(FuzzFinding) -> Bool {
    try turn.withLock { _ throws(FuzzFinding) in try calls(input) }
    return true
  }

  private static func calls(_ input: UnsafeRawBufferPointer) throws(FuzzFinding) {
    var machine = CInterfaceMachine(input)
    while machine.hasMore {
      let function = machine.byte()
      switch function % 27 {
      case 0: try machine.open()
      case 1: try machine.close()
      case 2: try machine.describe()
      case 3: try machine.find()
      case 4, 5: try machine.stream()
      case 6, 7: try machine.next()
      case 8, 9: try machine.release()
      case 10: try machine.prefetch()
      case 11, 12: try machine.load()
      case 13: try machine.bundle()
      case 14: try machine.dequantise()
      case 15: try machine.count()
      case 16: try machine.cancelLoader()
      case 17: try machine.foreign()
      case 18: try machine.generate()
      case 19: try machine.cancelGenerator()
      case 20: try machine.metadata()
      case 21: try machine.file()
      case 22: try machine.streamRows()
      case 23: try machine.prefetchRows()
      case 24: try machine.loadRows()
      case 25: try machine.loadInto()
      default: try machine.allocate()
      }
    }
    try machine.end()
  }

  /// Sequences that get far: everything of a file, a stream that is cancelled, text.
  static let seeds: [[UInt8]] = [
    [0, 0, 0, 4, 0, 255, 6, 0, 0, 6, 0, 0, 8, 0, 8, 1, 6, 0, 0, 1, 0],
    [0, 1, 1, 2, 0, 1, 3, 0, 0, 11, 0, 1, 2, 0, 14, 0, 0, 0, 1, 0, 8, 0, 15, 0],
    [0, 2, 2, 10, 0, 3, 0, 0, 1, 0, 2, 0, 11, 0, 3, 0, 0, 1, 0, 2, 0, 13, 0, 0, 1],
    [0, 3, 3, 4, 0, 255, 16, 0, 6, 0, 0, 4, 0, 255, 6, 0, 0, 1, 0, 8, 0, 17, 0, 0],
    [18, 0, 3, 0, 97, 98, 99, 19, 0, 18, 0, 2, 0, 97, 98, 99, 19, 1, 18, 1, 3, 0, 97, 0],
    [0, 4, 0, 0, 5, 1, 0, 6, 0, 0, 0, 1, 1, 0, 1, 4, 0, 1, 0, 0, 6, 0, 0],
    [0, 0, 0, 0, 20, 0, 0, 20, 0, 1, 200, 21, 0, 0, 40, 22, 0, 2, 0, 0, 1, 1, 0, 2, 6, 0, 0],
    [0, 1, 1, 0, 23, 0, 1, 0, 0, 2, 24, 1, 1, 0, 0, 2, 0, 25, 1, 1, 0, 0, 240, 0, 0, 26, 1, 64],
  ]
}
