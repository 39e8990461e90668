import Jinja

extension FuzzTarget {
  /// Templates: what a user wrote up to a zero, then a template.
  static let jinja = FuzzTarget(
    name: "jinja",
    dictionary: [
      "{{", "}}", "{%", "%}", "{#", "#}", "-%}", "for m in messages", "endfor", "if", "elif",
      "else",
      "endif", "set x =", "endset", "macro f(a, b=1)", "endmacro", "call", "endcall", "caller()",
      "namespace(", "ns.x", "range(100000)", "loop.", "loop(", "recursive", "break", "continue",
      "raw",
      "endraw", "generation", "messages", "m.content", "text", "|tojson(indent=9)", "|indent(9999)",
      "|replace('', 'xx')", ".split()", ".rsplit(none, 1)", ".center(99999)", "'%99999s' %",
      "'{:99999}'.format(", "[::-1]", "[9223372036854775807:]", "** 99999", "1e308",
      "99999999999999999999",
      "|map('string')", "|map(attribute='a.b')", "|selectattr('role', 'in',", "|groupby('role')",
      "|sort", "|unique|list", "|batch(2, 1)", "|sum", "|join(',')", "|dictsort", "|items", "|safe",
      ".lower()", ".title()", "\\x5cu00e9", "\\xce\\xa3", "~", "//", "%", "is defined", "not in",
    ], seeds: { JinjaTarget.seeds }, run: JinjaTarget.run)
}

enum JinjaTarget {
  static let seeds: [[UInt8]] = [
    "{% for m in messages %}{{ '<|' + m.role + '|>' ~ m['content']|trim }}{{ loop.last }}{% endfor %}",
    "{% set ns = namespace(a=[]) %}{% for i in range(3) %}{% set ns.a = ns.a + [i] %}{% endfor %}{{ ns.a }}",
    "{% macro f(n) %}{{ n }}{% if n %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(4)|indent(2) }}",
    "{{ messages|tojson(indent=2) }}{{ messages|map(attribute='role')|join(', ') }}",
    "{{ text.split(' ')[-1].replace('a', 'b')[::-1]|upper }}{{ '%5s|%-5d' % (text, 3) }}",
    "{{ 2 ** 90 // 7 }}{{ -7 // 2 }}{{ 1e16 }}{{ '{:>9.3f}'.format(2.5) }}",
    "{% macro f() %}{{ caller(text) }}{% endmacro %}{% call(x) f() %}{{ x }}{% endcall %}",
    "{%- raw -%} {{ }} {%- endraw +%}\n{% filter upper %}{# c #}{{ text }}{% endfilter %}",
  ].map { Array("a \u{E000}b\0".utf8) + Array($0.utf8) }

  /// A character that no template here can write.
  private static let userOnly: UInt8 = 0xEE

  static func run(_ input: UnsafeRawBufferPointer) throws(FuzzFinding) -> Bool {
    var reader = InputReader(input)
    let content = Array(reader.bytes(upTo: 0))
    let source = Array(reader.rest())
    let first = result(source, content)
    let second = result(source, content)
    switch (first, second) {
    case (.failure(let a), .failure(let b)):
      try require(a == b, "\(a) and then \(b)")
      try require(a.line > 0, "an error without a place: \(a)")
      return false
    case (.success(let a), .success(let b)):
      try require(a.bytes == b.bytes && a.data == b.data, "rendered differently again")
      try check(a, source, content)
      return true
    default: throw FuzzFinding("rendered once and failed once")
    }
  }

  private static func result(
    _ source: [UInt8], _ content: [UInt8]
  ) -> Result<MarkedText, JinjaError> {
    Result { () throws(JinjaError) in
      let text = Value.text(MarkedText(content, isData: true))
      let message = try Mapping([
        (MarkedText("role"), .text("user")), (MarkedText("content"), text),
      ])
      // No time, which differs from run to run.
      var limits = Limits(templateByteCount: source.count, inputByteCount: content.count)
      (limits.steps, limits.nanoseconds) = (200_000, .max)
      return try Template(source).render(
        [("messages", try .list(of: [.dictionary(message)])), ("text", text)], limits,
        Clock(seconds: 1_741_529_106)
      ).text
    }
  }

  /// Marks are in order, the text within its bound, and what only the user wrote is marked.
  private static func check(
    _ text: MarkedText, _ source: [UInt8], _ content: [UInt8]
  ) throws(FuzzFinding) {
    var end = -1
    for mark in text.data {
      try require(
        mark.lowerBound > end && !mark.isEmpty && mark.upperBound <= text.bytes.count,
        "marks out of order: \(text.data)")
      end = mark.upperBound
    }
    try require(
      text.bytes.count <= 16 << 20 + 4 * content.count, "\(text.bytes.count) bytes rendered")
    // A template can make characters by number.
    if source.contains(userOnly) || source.contains(0x5C) || source.contains(0x25) { return }
    for (offset, byte) in text.bytes.enumerated() where byte == userOnly {
      try require(text.hasData(in: offset..<offset + 1), "a user's byte at \(offset) has no mark")
    }
  }
}
