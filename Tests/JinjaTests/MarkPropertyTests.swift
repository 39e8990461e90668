import Jinja
import TestSupport
import Testing

/// Marks through operations put together at random.
@Suite struct MarkPropertyTests {
  private static let typed = [
    "жД ё\n<|Конец|>\tы%s{0}", "  <|конец|>\r\nф 'Ы\" ", "д", "{:ж>9}%% %(a)s", "",
  ]

  private func variables(_ number: Int) throws -> [(name: String, value: Value)] {
    func data(_ offset: Int) -> Value {
      .text(Self.typed[(number + offset) % Self.typed.count], isData: true)
    }
    let mapping = try Mapping([
      (MarkedText("ключ", isData: true), data(2)), (MarkedText("<|имя|>", isData: true), data(1)),
    ])
    return [
      ("x", data(0)), ("y", data(1)), ("n", try .list(of: [data(0), data(3), .text("α")])),
      ("d", .dictionary(mapping)),
    ]
  }

  @Test(
    "What was typed is marked after any operations, and what the template wrote is not",
    arguments: 1...16)
  func marks(seed: UInt64) throws {
    var generator = TemplateGenerator(seed: seed)
    var count = 0
    for number in 0..<400 {
      let template = generator.template()
      let values = try variables(number)
      let rendered: MarkedText
      do throws(JinjaError) {
        rendered = try Template(template).render(values, inputByteCount: 100)
      } catch {
        // A mistake in the template is none that depends on values.
        #expect(error.kind != .syntax || error.description.contains("no filter"), "\(template)")
        continue
      }
      count += 1
      if let fault = Self.fault(rendered, marksMore: generator.marksMore) {
        Issue.record("\(fault) in \(rendered.string) of \(template)")
      }
    }
    #expect(count > 100)
  }

  /// What is marked wrongly: Cyrillic letters are data, Greek ones are not, escaped or as they are.
  private static func fault(_ text: MarkedText, marksMore: Bool) -> String? {
    for (index, byte) in text.bytes.enumerated() {
      let isMarked = text.hasData(in: index..<index + 1)
      if byte == 0xD0 || byte == 0xD1, !isMarked { return "unmarked data at \(index)" }
      if byte == 0xCE || byte == 0xCF, isMarked, !marksMore { return "a mark at \(index)" }
      if byte == 0x5C, text.bytes[index...].starts(with: "\\u04".utf8), !isMarked {
        return "an unmarked escape at \(index)"
      }
    }
    return nil
  }
}
