import Glibc
import Jinja
import ModelFormat
import TestSupport
import Testing

/// What templates render is what jinja2 renders, with transformers' settings.
@Suite struct RenderingTests {
  private static let groups = Golden.json("cases.json").compactMap { $0["name"]?.string }

  @Test("As in jinja2", arguments: groups)
  func cases(group name: String) throws {
    let group = try #require(Golden.json("cases.json").first { $0["name"]?.string == name })
    for entry in try #require(group["cases"]?.array) {
      let template = try #require(entry["template"]?.string)
      let expected = entry["text"]?.string
      do throws(JinjaError) {
        let text = try Golden.render(Array(template.utf8), entry["variables"])
        #expect(text.string == expected, "\(template)")
      } catch {
        #expect(expected == nil, "\(template): \(error)")
        #expect(error.line > 0, "\(template): \(error)")
      }
    }
  }

  @Test func `All cases are there`() {
    #expect(Self.groups.count == 19)
  }

  @Test(
    "The cases of llama.cpp's tests of its interpreter and of its templates render as in jinja2",
    .enabled(if: published != nil, "none: set FLASHINFER_CHAT_TEMPLATES"))
  func publishedCases() throws {
    let json = try #require(Self.published).withUnsafeBytes {
      try JSONParser.parse($0, path: "published.json")
    }
    for entry in try #require(json.array) {
      let template = try #require(entry["template"]?.string)
      let name = entry["name"]?.string ?? ""
      do throws(JinjaError) {
        let text = try Golden.render(Array(template.utf8), entry["variables"])
        #expect(text.string == entry["text"]?.string, "\(name): \(template)")
      } catch {
        #expect(entry["text"] == nil, "\(name): \(template): \(error)")
      }
    }
  }

  private static let published = folder.flatMap { Golden.bytes("\($0)/published.json") }

  /// The folder with the templates that `templates.tsv` knows; `Cases/README.md` says how to get them.
  static let folder: String? = {
    guard let named = getenv("FLASHINFER_CHAT_TEMPLATES") else { return nil }
    let path = String(cString: named)
    return access(path, R_OK) == 0 ? path : nil
  }()

  @Test(
    "Published templates render twelve conversations as in jinja2, and fail where it raises",
    .enabled(if: folder != nil, "no templates: set FLASHINFER_CHAT_TEMPLATES"))
  func publishedTemplates() throws {
    let folder = try #require(Self.folder)
    let conversations = Golden.json("conversations.json")
    let table = String(decoding: Golden.file("templates.tsv"), as: UTF8.self)
    var count = 0
    for line in table.split(separator: "\n") {
      let cells = line.split(separator: "\t").map(String.init)
      try #require(cells.count == 2 + conversations.count)
      guard let source = Golden.bytes("\(folder)/\(cells[0])"),
        Fingerprint.of(source) == cells[1]
      else { continue }
      count += 1
      for (conversation, expected) in zip(conversations, cells.dropFirst(2)) {
        let name = "\(cells[0]): \(conversation["name"]?.string ?? "")"
        do throws(JinjaError) {
          let text = try Golden.render(source, conversation["variables"])
          #expect(Fingerprint.of(text.bytes) == expected, "\(name):\n\(text.string)")
          // What was typed between markers that a template could take for its own.
          let typed = Array("7 * 7".utf8)
          for start in text.bytes.indices where text.bytes[start...].starts(with: typed) {
            for offset in start..<start + typed.count {
              #expect(text.hasData(in: offset..<offset + 1), "\(name): no mark at \(offset)")
            }
          }
        } catch {
          #expect(expected == "raises", "\(name): \(error)")
        }
      }
    }
    #expect(count > 0, "none of the templates is the one that the goldens were made from")
  }
}
