import Glibc

/// A file with given bytes that goes away with its last reference.
public final class TemporaryFile: Sendable {
  public let path: String

  /// Writes `bytes` to a new file in `folder`.
  public init(_ bytes: [UInt8], folder: String = "/var/tmp", name: String = "flashinfer") {
    var template = Array("\(folder)/\(name)-XXXXXX".utf8CString)
    let file = mkstemp(&template)
    precondition(file >= 0, "\(folder) cannot be written to")
    path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    bytes.withUnsafeBytes { bytes in
      var written = 0
      while written < bytes.count {
        let count = write(file, bytes.baseAddress! + written, bytes.count - written)
        precondition(count > 0, "\(folder) is full")
        written += count
      }
    }
    fsync(file)
    close(file)
  }

  deinit { unlink(path) }
}
