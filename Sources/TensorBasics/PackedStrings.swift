/// Many byte strings in two arrays: their bytes one after the other, and where each begins.
///
/// Strings are bytes, not Swift `String`s, whose equality is canonical: "é" composed and decomposed
/// are two tokens. Costs 4 bytes a string over its bytes.
public struct PackedStrings: Sendable {
  /// All strings' bytes.
  public private(set) var bytes: [UInt8] = []
  /// Start of each string, and one last entry: the end.
  public private(set) var offsets: [UInt32] = [0]

  public init() {}

  public var count: Int { offsets.count - 1 }

  public mutating func reserveCapacity(strings: Int, bytes byteCount: Int) {
    bytes.reserveCapacity(byteCount)
    offsets.reserveCapacity(strings + 1)
  }

  /// Appends a string; at most 4 GiB of them fit.
  public mutating func append(_ string: some Sequence<UInt8>) {
    bytes.append(contentsOf: string)
    precondition(bytes.count <= Int(UInt32.max), "packed strings exceed 4 GiB")
    offsets.append(UInt32(bytes.count))
  }

  /// The bytes of string `index`.
  public subscript(index: Int) -> ArraySlice<UInt8> {
    bytes[Int(offsets[index])..<Int(offsets[index + 1])]
  }
}
