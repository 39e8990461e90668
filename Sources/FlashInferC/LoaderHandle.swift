import Glibc
import Synchronization
import WeightLoader

/// A loader and its strings as C reads them.
final class LoaderHandle {
  let loader: TensorLoader
  /// All names one after the other, each with its NUL, and where each begins.
  private let names: UnsafeMutablePointer<CChar>
  private let nameOffsets: [Int]

  init(_ loader: TensorLoader) {
    self.loader = loader
    var offsets: [Int] = []
    offsets.reserveCapacity(loader.tensors.count)
    var byteCount = 0
    for tensor in loader.tensors {
      offsets.append(byteCount)
      byteCount += tensor.name.utf8.count + 1
    }
    let names = UnsafeMutablePointer<CChar>.allocate(capacity: max(1, byteCount))
    var place = names
    for tensor in loader.tensors {
      for byte in tensor.name.utf8 {
        place.initialize(to: CChar(bitPattern: byte))
        place += 1
      }
      place.initialize(to: 0)
      place += 1
    }
    self.names = names
    nameOffsets = offsets
  }

  deinit { names.deallocate() }

  /// The name of tensor `index`, valid while the handle lives.
  func name(_ index: Int) -> UnsafePointer<CChar> { UnsafePointer(names + nameOffsets[index]) }

  /// The loader that a C handle stands for.
  static func find(_ handle: OpaquePointer?) throws(CallError) -> LoaderHandle {
    try HandleTable.shared.find(number(try required(handle, "loader")), as: LoaderHandle.self)
  }
}

/// Names of types as C strings that live as long as the process.
enum TypeNames {
  private struct Names: @unchecked Sendable {
    // Safety: strings that are never changed or freed.
    var strings: [String: UnsafePointer<CChar>] = [:]
  }
  private static let names = Mutex(Names())

  static func string(_ name: String) -> UnsafePointer<CChar>? {
    let found = names.withLock { names in
      let string = names.strings[name] ?? strdup(name).map { UnsafePointer($0) }
      names.strings[name] = string
      return UInt(bitPattern: string)
    }
    return UnsafePointer(bitPattern: found)
  }
}
