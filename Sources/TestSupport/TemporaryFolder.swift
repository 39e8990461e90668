import Glibc

/// A folder that goes away, with all that is in it, with its last reference.
public final class TemporaryFolder: Sendable {
  public let path: String

  public init(in parent: String = "/tmp") {
    var template = Array("\(parent)/flashinfer-test-XXXXXX".utf8CString)
    precondition(mkdtemp(&template) != nil, "\(parent) cannot be written to")
    path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }

  deinit { Self.remove(path) }

  private static func remove(_ folder: String) {
    for name in entries(of: folder) where unlink("\(folder)/\(name)") != 0 {
      remove("\(folder)/\(name)")
    }
    rmdir(folder)
  }

  /// Names of what is in the folder, in order.
  public var entries: [String] { Self.entries(of: path) }

  private static func entries(of path: String) -> [String] {
    guard let folder = opendir(path) else { return [] }
    defer { closedir(folder) }
    var names: [String] = []
    while let entry = readdir(folder) {
      let name = withUnsafeBytes(of: &entry.pointee.d_name) { bytes in
        String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
      }
      if name != ".", name != ".." { names.append(name) }
    }
    return names.sorted()
  }

  /// Writes a file and returns its path.
  @discardableResult
  public func write(_ name: String, _ bytes: [UInt8]) -> String {
    let path = "\(self.path)/\(name)"
    guard let file = fopen(path, "w") else { preconditionFailure("\(path) cannot be written") }
    precondition(fwrite(bytes, 1, bytes.count, file) == bytes.count, "\(path): no room")
    fclose(file)
    return path
  }

  /// A file's bytes; none if there is no such file.
  public func read(_ name: String) -> [UInt8] {
    guard let file = fopen("\(path)/\(name)", "r") else { return [] }
    defer { fclose(file) }
    var bytes: [UInt8] = []
    var block = [UInt8](repeating: 0, count: 1 << 16)
    while case let count = fread(&block, 1, block.count, file), count > 0 {
      bytes.append(contentsOf: block[..<count])
    }
    return bytes
  }
}
