import Glibc
import Jinja
import ModelFormat
import Tokenization

/// Files with what jinja2 rendered, which `Cases/generate` writes.
enum Golden {
  /// 9 March 2025, 14:05:06 of local time, as in `generate`.
  static let clock: Clock = {
    var parts = tm()
    (parts.tm_year, parts.tm_mon, parts.tm_mday) = (125, 2, 9)
    (parts.tm_hour, parts.tm_min, parts.tm_sec) = (14, 5, 6)
    parts.tm_isdst = -1
    return Clock(seconds: mktime(&parts))
  }()

  static func bytes(_ path: String) -> [UInt8]? {
    guard let file = fopen(path, "r") else { return nil }
    defer { fclose(file) }
    var bytes = [UInt8](repeating: 0, count: 4 << 20)
    let count = fread(&bytes, 1, bytes.count, file)
    return Array(bytes[..<count])
  }

  static func file(_ name: String) -> [UInt8] {
    let folder = "/" + #filePath.split(separator: "/").dropLast().joined(separator: "/")
    return bytes("\(folder)/Cases/\(name)") ?? []
  }

  static func json(_ name: String) -> [JSONValue] {
    let bytes = file(name)
    let value = bytes.withUnsafeBytes { bytes in try? JSONParser.parse(bytes, path: name) }
    return value?.array ?? []
  }

  /// Renders a template with variables from JSON, marked as data.
  static func render(_ source: [UInt8], _ variables: JSONValue?) throws(JinjaError) -> MarkedText {
    var values: [(name: String, value: Value)] = []
    for member in variables?.members ?? [] {
      values.append((member.key, try Value(data: member.value)))
    }
    return try Template(source).render(values, inputByteCount: 4096, clock: clock)
  }
}
