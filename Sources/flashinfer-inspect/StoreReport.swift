import CommandLineSupport
import KVCache
import ModelFormat
import TensorBasics

/// What a store of keys and values holds, for people, and deleting from it.
struct StoreReport {
  private let directory: KeyValueDirectory

  init(path: String) throws {
    directory = try KeyValueDirectory(openingExisting: path)
  }

  /// Writes the entries, the last used first.
  func write(to json: inout JSONWriter) {
    let items = directory.items()
    json.array("entries", of: items) { list, item in
      list.object { json in
        json.text("id", item.id)
        json.number("bytes", item.byteCount)
        json.number("tokens", item.tokenCount)
        json.number("ageSeconds", item.ageSeconds)
        json.number("uses", item.useCount)
        json.text("model", item.model.map { "\($0)" })
        json.text("modelName", String(decoding: item.modelName, as: UTF8.self))
        json.text("text", String(decoding: item.text, as: UTF8.self))
        json.text("problem", item.problem)
      }
    }
    json.number("bytes", items.reduce(0) { $0 + $1.byteCount })
  }

  /// A line for each entry, the last used first.
  func printLines() {
    let items = directory.items()
    if !items.isEmpty {
      let names = [
        "entry".padding(to: items[0].id.count), Self.padded("size", 11), Self.padded("tokens", 7),
        Self.padded("last used", 10), Self.padded("uses", 6),
        "computed by".padding(to: Self.modelColumnCount), "name",
        "text",
      ]
      Terminal.print(names.joined(separator: "  ") + "\n")
    }
    for item in items {
      var columns = [
        item.id, Self.padded("\(ByteCount(item.byteCount))", 11),
        Self.padded("\(item.tokenCount)", 7),
        Self.padded("\(Self.age(item.ageSeconds)) ago", 10),
        Self.padded(item.useCount.fixed(1), 6),
      ]
      columns.append((item.model.map { "\($0)" } ?? "–").padding(to: Self.modelColumnCount))
      if let problem = item.problem {
        columns.append(problem)
      } else {
        columns += [Self.line(item.modelName), "\"\(Self.line(item.text))\""]
      }
      Terminal.print(columns.joined(separator: "  ") + "\n")
    }
    let byteCount = items.reduce(0) { $0 + $1.byteCount }
    Terminal.print("\(Self.entries(items.count)), \(ByteCount(byteCount))\n")
  }

  /// Deletes an entry by its name, or `all`.
  ///
  /// - Returns: how many were deleted.
  func remove(_ id: String) throws -> Int {
    if id == "all" { return directory.removeAll() }
    guard directory.remove(id) else {
      throw CommandError(.noInput, "\(directory.path): no entry \(id)")
    }
    return 1
  }

  static func entries(_ count: Int) -> String {
    count == 1 ? "1 entry" : "\(count) entries"
  }

  /// What a model's identity takes, after the kind of it.
  private static let modelColumnCount = "model ".count + 16

  /// At most so many characters of a text that might be anything, on one line.
  private static func line(_ bytes: [UInt8]) -> String {
    let characterLimit = 60
    let text = String(decoding: bytes, as: UTF8.self)
    var line = ""
    for scalar in text.unicodeScalars.prefix(characterLimit) {
      // Control characters would move the cursor, or worse.
      let isShown =
        switch scalar.properties.generalCategory {
        case .control, .format, .lineSeparator, .paragraphSeparator, .surrogate, .privateUse,
          .unassigned:
          false
        default: true
        }
      line.unicodeScalars.append(isShown ? scalar : " ")
    }
    return text.unicodeScalars.count > characterLimit ? line + "…" : line
  }

  /// Time in the largest unit that fits.
  private static func age(_ seconds: Int) -> String {
    for (name, length) in [("d", 86_400), ("h", 3600), ("min", 60)] where seconds >= length {
      return "\(seconds / length) \(name)"
    }
    return "\(seconds) s"
  }

  private static func padded(_ text: String, _ width: Int) -> String {
    String(repeating: " ", count: max(0, width - text.count)) + text
  }
}

extension String {
  /// With blanks after it up to `width` characters.
  func padding(to width: Int) -> String {
    self + String(repeating: " ", count: max(0, width - count))
  }
}
