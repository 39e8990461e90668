import Glibc

/// A value that was read to find a limit, as the system gave it.
public struct Finding: Sendable, Equatable {
  /// The file's last component, or the name of the field in it.
  public let name: String
  /// The text as read, e.g. `max` or `50000 100000`.
  public let value: String
  /// The file, below the root that was read.
  public let path: String
}

/// Reads the system's small text files below a root folder, and notes each value it hands out.
final class SystemFiles {
  private(set) var findings: [Finding] = []
  private let root: String

  /// - Parameter root: the folder that holds `proc` and the mount points; empty for the machine itself.
  init(root: String = "") { self.root = root }

  /// The only line of a file, without white space around it.
  func value(_ path: String) -> String? {
    guard let text = Self.text(root + path) else { return nil }
    let line = text.prefix { $0 != "\n" }.split(separator: " ").joined(separator: " ")
    note(
      name: String(
        path.suffix(from: path.lastIndex(of: "/").map(path.index(after:)) ?? path.startIndex)),
      value: line, path: path)
    return line
  }

  /// The rest of the first line that begins with `name` and a white space or colon.
  func field(_ name: String, in path: String) -> String? {
    guard let text = Self.text(root + path) else { return nil }
    for line in text.split(separator: "\n") where line.hasPrefix(name) {
      let rest = line.dropFirst(name.count)
      guard let next = rest.first, next == " " || next == "\t" || next == ":" else { continue }
      let value = rest.drop { $0 == ":" || $0 == " " || $0 == "\t" }
        .split(whereSeparator: { $0 == " " || $0 == "\t" }).joined(separator: " ")
      note(name: name, value: value, path: path)
      return value
    }
    return nil
  }

  /// The bytes of a field that is stated in kB, which are KiB.
  func kibibytes(_ name: String, in path: String) -> Int? {
    guard let word = field(name, in: path)?.split(separator: " ").first, let number = Int(word),
      (0..<1 << 48).contains(number)
    else { return nil }
    return number * 1024
  }

  /// The lines of a file; not noted.
  func lines(_ path: String) -> [Substring] { Self.text(root + path)?.split(separator: "\n") ?? [] }

  func exists(_ path: String) -> Bool { access(root + path, F_OK) == 0 }

  private func note(name: String, value: String, path: String) {
    let finding = Finding(name: name, value: value, path: path)
    if !findings.contains(finding) { findings.append(finding) }
  }

  /// A file's contents, up to a length that no file of the kind has; nil if it cannot be read.
  static func text(_ path: String) -> String? {
    guard let file = fopen(path, "re") else { return nil }
    defer { fclose(file) }
    var bytes: [UInt8] = []
    var block = [UInt8](repeating: 0, count: 4096)
    while bytes.count < longest, case let count = fread(&block, 1, block.count, file), count > 0 {
      bytes.append(contentsOf: block[..<count])
    }
    // A folder opens, and fails to be read.
    return ferror(file) == 0 ? String(decoding: bytes, as: UTF8.self) : nil
  }

  private static let longest = 4 << 20
}
