import CommandLineSupport
import ModelFormat
import WeightLoader

/// What files say under their keys, for people and as JSON; of long arrays only how they begin.
struct MetadataView {
  private let metadata: FileMetadata
  private let values: [MetadataValue]

  /// Elements of an array that are shown.
  private static let shownElementCount = 8
  /// Characters of a text that are shown to people.
  private static let shownCharacterCount = 160

  /// Reads what the file, or the files of the folder, at `path` say.
  init(_ path: String) throws {
    let metadata = try FileMetadata(path)
    self.metadata = metadata
    values = try metadata.entries.map {
      try metadata.value(of: $0, limit: Self.shownElementCount)
    }
  }

  func printLines() {
    guard !values.isEmpty else { return Terminal.remark("the file has no metadata") }
    let hasFiles = metadata.files.count > 1
    var table = Table(columns: ["key", "type"] + (hasFiles ? ["file"] : []) + ["value"])
    for (entry, value) in zip(metadata.entries, values) {
      let file = Progress.name(metadata.files[entry.fileIndex])
      table.add(
        [entry.key, entry.typeName + (entry.isArray ? " × \(entry.count)" : "")]
          + (hasFiles ? [file] : []) + [Self.text(of: value, entry)])
    }
    table.printLines()
  }

  /// Writes the member.
  func write(to json: inout JSONWriter) {
    json.array("metadata", of: zip(metadata.entries, values)) { list, item in
      list.object { json in
        json.text("key", item.0.key)
        json.text("file", metadata.files[item.0.fileIndex])
        json.text("type", item.0.typeName)
        json.number("count", item.0.isArray ? item.0.count : nil)
        Self.write(item.1, "value", to: &json)
      }
    }
  }

  private static func write(_ value: MetadataValue, _ key: String?, to json: inout JSONWriter) {
    switch value {
    case .integer(let number): json.number(key, number)
    case .unsigned(let number): json.number(key, number)
    case .float(let number): json.number(key, number)
    case .bool(let flag): json.flag(key, flag)
    case .string(let text): json.text(key, utf8: Array(text.utf8))
    case .array(let values): json.array(key, of: values) { write($1, nil, to: &$0) }
    }
  }

  private static func text(of value: MetadataValue, _ entry: MetadataEntry) -> String {
    switch value {
    case .integer(let number): return "\(number)"
    case .unsigned(let number): return "\(number)"
    case .float(let number): return "\(number)"
    case .bool(let flag): return "\(flag)"
    case .string(let text):
      let shown = text.prefix(shownCharacterCount)
      return "\"\(shown)\"" + (shown.endIndex < text.endIndex ? "… (\(text.utf8.count) bytes)" : "")
    case .array(let values):
      let elements =
        values.map { Self.text(of: $0, entry) } + (values.count < entry.count ? ["…"] : [])
      return "[" + elements.joined(separator: ", ") + "]"
    }
  }
}
