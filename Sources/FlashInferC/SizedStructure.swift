import CFlashInfer
import Glibc

/// A structure of `flashinfer.h`: it begins with its size, and later versions append members.
///
/// The caller's may be of another version than the library's. Both only touch the members that both know.
protocol SizedStructure {
  /// All zero, which is the default of whatever was appended.
  init()
  var size: Int { get set }
  /// Its size in the first version that had it; callers cannot have a shorter one.
  static var firstByteCount: Int { get }
}

extension flashinfer_error: SizedStructure { static let firstByteCount = 1024 }
extension flashinfer_options: SizedStructure { static let firstByteCount = 48 }
extension flashinfer_plan: SizedStructure { static let firstByteCount = 72 }
extension flashinfer_tensor: SizedStructure { static let firstByteCount = 136 }
extension flashinfer_metadata: SizedStructure { static let firstByteCount = 56 }
extension flashinfer_piece: SizedStructure { static let firstByteCount = 64 }
extension flashinfer_statistics: SizedStructure { static let firstByteCount = 56 }
extension flashinfer_generator_options: SizedStructure { static let firstByteCount = 32 }
extension flashinfer_generation: SizedStructure { static let firstByteCount = 40 }
extension flashinfer_result: SizedStructure { static let firstByteCount = 296 }
extension flashinfer_message: SizedStructure { static let firstByteCount = 24 }
extension flashinfer_engine_options: SizedStructure { static let firstByteCount = 40 }
extension flashinfer_engine_plan: SizedStructure { static let firstByteCount = 112 }
extension flashinfer_sequence_options: SizedStructure { static let firstByteCount = 120 }
extension flashinfer_event: SizedStructure { static let firstByteCount = 392 }

extension SizedStructure {
  /// Bytes that the caller's structure and the library's have in common.
  fileprivate static func commonByteCount(_ size: Int) -> Int {
    min(size, MemoryLayout<Self>.size)
  }

  /// The size that the caller states.
  ///
  /// - Throws: ``CallError`` if no version has that size.
  static func size(at pointer: UnsafeRawPointer, _ name: String) throws(CallError) -> Int {
    let size = pointer.loadUnaligned(as: Int.self)
    guard (firstByteCount...Int(FLASHINFER_SIZE_LIMIT)).contains(size) else {
      throw CallError(
        .invalid,
        "\(name)->size is \(UInt(bitPattern: size)), not \(firstByteCount) to "
          + "\(FLASHINFER_SIZE_LIMIT)", remedy: "use the structure's initialiser")
    }
    return size
  }

  /// The caller's structure as the library knows it.
  ///
  /// - Throws: ``CallError`` if its size is no version's, or where members are set that the library does
  ///   not know.
  static func read(from pointer: UnsafeRawPointer, _ name: String) throws(CallError) -> Self {
    try read(from: pointer, size: try size(at: pointer, name), name)
  }

  /// As ``read(from:_:)``, where the size is that of an array's elements.
  static func read(
    from pointer: UnsafeRawPointer, size: Int, _ name: String
  ) throws(CallError) -> Self {
    var structure = Self()
    withUnsafeMutableBytes(of: &structure) {
      $0.copyMemory(
        from: UnsafeRawBufferPointer(start: pointer, count: commonByteCount(size)))
    }
    let rest = UnsafeRawBufferPointer(start: pointer, count: size)[commonByteCount(size)...]
    if let unknown = rest.firstIndex(where: { $0 != 0 }) {
      throw CallError(
        .invalid,
        "\(name) sets a member at byte \(unknown), which this version of the library does not know",
        remedy: "leave it zero, or install a later version of the library")
    }
    structure.size = size
    return structure
  }

  /// Fills the caller's structure of `size` bytes in: what it has, and zero for what the library lacks.
  func write(to pointer: UnsafeMutableRawPointer, size: Int) {
    var structure = self
    structure.size = size
    let common = Self.commonByteCount(size)
    withUnsafeBytes(of: &structure) {
      pointer.copyMemory(from: $0.baseAddress ?? UnsafeRawPointer(pointer), byteCount: common)
    }
    memset(pointer + common, 0, size - common)
  }
}

/// Writes text into an array of characters in a structure: ended by NUL, cut where a character begins.
func fill<Characters>(_ characters: inout Characters, _ text: String) {
  withUnsafeMutableBytes(of: &characters) { fill($0, text) }
}

/// As ``fill(_:_:)``, of memory that is not empty.
func fill(_ bytes: UnsafeMutableRawBufferPointer, _ text: String) {
  var end = 0
  for scalar in text.unicodeScalars {
    guard let encoded = Unicode.UTF8.encode(scalar), end + encoded.count < bytes.count else {
      break
    }
    for byte in encoded {
      bytes[end] = byte
      end += 1
    }
  }
  bytes[end] = 0
}

/// As ``fill(_:_:)``, with a path as the system has it; left empty if it does not fit.
func fill<Characters>(_ characters: inout Characters, path: [UInt8]) {
  withUnsafeMutableBytes(of: &characters) { bytes in
    guard path.count < bytes.count else { return }
    bytes.copyBytes(from: path)
    bytes[path.count] = 0
  }
}
