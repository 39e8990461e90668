import Glibc
import Synchronization
import WeightLoader

/// A loader and its strings as C reads them.
final class LoaderHandle {
  let loader: TensorLoader
  private let names: StringTable
  private let keys: StringTable

  init(_ loader: TensorLoader) {
    self.loader = loader
    names = StringTable(loader.tensors.lazy.map(\.name))
    keys = StringTable(loader.metadata.lazy.map(\.key))
  }

  /// The name of tensor `index`, valid while the handle lives.
  func name(_ index: Int) -> UnsafePointer<CChar> { names[index] }

  /// The key of metadata entry `index`, valid while the handle lives.
  func key(_ index: Int) -> UnsafePointer<CChar> { keys[index] }

  /// The loader that a C handle stands for.
  static func find(_ handle: OpaquePointer?) throws(CallError) -> LoaderHandle {
    try HandleTable.shared.find(number(try required(handle, "loader")), as: LoaderHandle.self)
  }
}

/// Strings one after the other, each with its NUL, as C reads them while the table lives.
private final class StringTable {
  private let characters: UnsafeMutablePointer<CChar>
  private let offsets: [Int]

  init(_ strings: some Collection<String>) {
    var offsets: [Int] = []
    offsets.reserveCapacity(strings.count)
    var byteCount = 0
    for string in strings {
      offsets.append(byteCount)
      byteCount += string.utf8.count + 1
    }
    characters = UnsafeMutablePointer<CChar>.allocate(capacity: max(1, byteCount))
    self.offsets = offsets
    var place = characters
    for string in strings {
      for byte in string.utf8 {
        place.initialize(to: CChar(bitPattern: byte))
        place += 1
      }
      place.initialize(to: 0)
      place += 1
    }
  }

  deinit { characters.deallocate() }

  subscript(index: Int) -> UnsafePointer<CChar> { UnsafePointer(characters + offsets[index]) }
}

/// The few strings, such as names of types, that are C's for as long as the process lives.
enum LastingStrings {
  private struct Known: @unchecked Sendable {
    // Safety: strings that are never changed or freed.
    var strings: [String: UnsafePointer<CChar>] = [:]
  }
  private static let known = Mutex(Known())

  static func string(_ text: String) -> UnsafePointer<CChar>? {
    let found = known.withLock { known in
      let string = known.strings[text] ?? strdup(text).map { UnsafePointer($0) }
      known.strings[text] = string
      return UInt(bitPattern: string)
    }
    return UnsafePointer(bitPattern: found)
  }
}
