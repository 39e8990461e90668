/// A model file says something that cannot be true, or that this project does not read.
public struct FormatError: Error, Sendable, Equatable, CustomStringConvertible {
  public enum Kind: Sendable, Equatable {
    /// The file ends before what it announces.
    case truncated
    /// The bytes contradict the format or each other.
    case malformed
    /// Valid, but outside what is supported (a type, an architecture, a version).
    case unsupported
    /// The stored checksum is not that of the bytes.
    case checksumMismatch
    /// Not the expected kind of file at all.
    case unrecognised
  }

  public var kind: Kind
  /// The file, once the reader knows it.
  public var path: String?
  /// Byte offset of what is wrong, if there is one.
  public var offset: Int?
  /// What is wrong and what would be right.
  public var message: String

  public init(_ kind: Kind, at offset: Int? = nil, path: String? = nil, _ message: String) {
    self.kind = kind
    self.path = path
    // A damaged header may state a negative offset, which is no place in a file.
    self.offset = offset.flatMap { $0 >= 0 ? $0 : nil }
    self.message = message
  }

  public var description: String {
    var text = path.map { "\($0): " } ?? ""
    if let offset { text += "at byte \(offset): " }
    return text + message
  }
}
