import Jinja
import Testing

/// A template cannot use more than its bounds, and says where it tried.
///
/// What has to succeed is held to what is counted alone: processor time depends on machine and sanitizer.
@Suite struct LimitTests {
  private func kind(_ template: String) -> JinjaError.Kind? {
    do throws(JinjaError) {
      _ = try Template(template).render([], inputByteCount: 0)
      return nil
    } catch { return error.kind }
  }

  @Test(
    "What takes too many steps or bytes stops",
    arguments: [
      "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
      "{% set ns = namespace(s='x') %}{% for i in range(99) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
      "{% set ns = namespace(l=[1]) %}{% for i in range(99) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}{{ ns.l }}",
      "{% set ns = namespace(l=[1]) %}{% for i in range(90) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}{{ ns.l == ns.l + [] }}{{ ns.l|tojson }}",
      "{{ 'x' * 99999999999 }}", "{{ 'x'.center(99999999) }}", "{{ [1] * 99999999 }}",
      "{{ [1] * 9223372036854775807 }}", "{{ [1] * 10 ** 18 }}",
      "{{ [1, 2]|batch(9223372036854775807, 1)|list }}",
      "{{ [1]|batch(9223372036854775806, 1)|list }}",
      "{{ (1, 2) * 4611686018427387904 }}",
      "{% set p = namespace() %}{% set q = namespace(p=p) %}{% for i in range(9000) %}"
        + "{% set m = namespace() %}{% set l = q.p %}{% set l.x = m %}{% set q.p = m %}{% endfor %}{{ p }}",
      "{{ 7 ** 999999 }}", "{{ 2 ** 99999999999 }}", "{{ range(100001) }}",
      "{{ '%99999999d' % 1 }}",
      "{{ '{:999999999}'.format(1) }}", "{{ [[]]|tojson(indent=99999999) }}",
      "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "{{ 'aaaa'.replace('', 'x' * 9000000) }}",
      "{% macro f(n) %}{% for i in [1] recursive %}{{ loop([1]) }}{% endfor %}{% endmacro %}{{ f(1) }}",
      "{% set ns = namespace(g=[1]) %}{% for i in range(200) %}{% set ns.g = ns.g|map('string') %}{% endfor %}{{ ns.g|list }}",
      "{% set ns = namespace(g=[1]) %}{% for i in range(200) %}{% set ns.g = [ns.g] %}{% endfor %}",
    ]) func bounds(template: String)
  {
    #expect(kind(template) == .limit, "\(template)")
  }

  /// Each goes over a text of 300,000 bytes again and again.
  @Test(arguments: [
    "x.find(b)", "b in x", "x.replace(b, 'c')", "x.split(b)", "x.rsplit(b)",
    "x.rpartition(b)|length",
    "x|upper", "x|title", "x.strip('a')", "x|wordcount", "x|e", "x|tojson", "[x]|string",
    "x|length",
    "x[::-1]", "x|list", "x.split('a')", "[x, x, x]|sort", "x ~ x", "x.count('a')", "x == y",
    "{x: 1}",
    "x.istitle()", "range(100000)|list", "n + n", "n|map('upper')|join", "none in n", "dict(**d)",
    "namespace(**d)", "d.items()|list", "d == e", "7 ** 3000",
  ])
  func `Work on long values counts, however few steps it is`(expression: String) throws {
    let template = try Template(
      "{% for i in range(99999) %}{% for j in range(99999) %}{% set z = \(expression) %}{% endfor %}{% endfor %}"
    )
    let long = String(repeating: "a", count: 300_000)
    let pairs = (0..<5000).map { (MarkedText("k\($0)"), Value.text("v")) }
    var limits = Limits(templateByteCount: 100, inputByteCount: 1000)
    limits.nanoseconds /= 10
    let error = #expect(throws: JinjaError.self) {
      _ = try template.render(
        [
          ("x", .text(long)), ("y", .text(long)), ("b", .text(long.prefix(3000) + "b")),
          ("n", try .list(of: Array(repeating: .text("w"), count: 20_000))),
          ("d", .dictionary(try Mapping(pairs))), ("e", .dictionary(try Mapping(pairs))),
        ], limits, Clock(seconds: 0))
    }
    #expect(error?.kind == .limit, "\(expression): \(String(describing: error))")
  }

  @Test(
    "Memory is bounded, whatever a template keeps",
    arguments: [
      "{% set ns.l = ns.l + [x ~ i] %}", "{% set ns.l = [ns.l, x|list] if i % 90 else [] %}",
      "{% set ns.l = ns.l + [[i, {'a': i}]] %}", "{% set ns.s = ns.s ~ ns.s ~ 'a' %}",
      "{% set ns.s %}{{ ns.s }}{{ ns.s }}a{% endset %}", "{% set ns.l = ns.l + ns.l + [1] %}",
      "{% set m = namespace(a=[i]) %}", "{% macro m() %}{% endmacro %}",
      "{% set ns.s = ([x] * 2000)|join %}", "{% set ns.s = ([x] * 2000)|tojson %}",
      "{% set ns.s = x.replace('a', x) %}", "{% set ns.s = '%s' * 9000 % ((x,) * 9000) %}",
      "{% set ns.l = ns.l + [([i] * 9999)|batch(9999)|list] %}",
      "{% set ns.l = ns.l + [[i]|sort] %}",
      "{% set ns.l = ns.l + [x[:9].partition('a')] %}", "{% set ns.l = ns.l + [x[:9].split()] %}",
    ])
  func memory(body: String) throws {
    let template = try Template(
      "{% set ns = namespace(l=[], s='') %}{% for i in range(99999) %}{% for j in range(99999) %}\(body)"
        + "{% endfor %}{% endfor %}")
    let error = #expect(throws: JinjaError.self) {
      _ = try template.render(
        [("x", .text(String(repeating: "a", count: 20_000)))], inputByteCount: 0)
    }
    #expect(error?.kind == .limit, "\(body): \(String(describing: error))")
  }

  @Test func `A thousand messages need a fraction of what is allowed`() throws {
    // As templates do it that look for the last question from every message, and collect what they write.
    let template = try Template(
      "{% set ns = namespace(last=-1, text='') %}{% for m in messages %}{% for o in messages[::-1] %}"
        + "{% if o.role == 'user' %}{% set ns.last = loop.index %}{% break %}{% endif %}{% endfor %}"
        + "{% set rest = messages[loop.index0:] %}"
        + "{% set ns.text = ns.text ~ '<|' ~ m.role ~ '|>' ~ m.content|trim ~ '<|end|>\n' %}{% endfor %}"
        + "{{ ns.text }}")
    let content = Value.text(String(repeating: "word ", count: 200), isData: true)
    let message = Value.dictionary(
      try Mapping([(MarkedText("role"), .text("user")), (MarkedText("content"), content)]))
    var limits = Limits(templateByteCount: 500, inputByteCount: 1_000_000)
    (limits.steps, limits.text) = (limits.steps / 8, limits.text / 8)
    limits.nanoseconds = .max
    let text = try template.render(
      [("messages", .list(of: Array(repeating: message, count: 1000)))], limits,
      Clock(seconds: 0)
    ).text
    #expect(text.bytes.count > 1_000_000)
  }

  @Test(
    "A template may go over a thousand short messages from each of them",
    arguments: [
      "messages[::-1]", "messages[loop.index0:] + messages[:loop.index0]", "messages|list + []",
      "(messages|selectattr('role', 'equalto', 'user')|list)[-1:]", "messages|reverse|list|last",
      "messages|map(attribute='role')|select('none')|list", "(messages|batch(2)|list)[0]",
    ])
  func quadratic(expression: String) throws {
    let template = try Template(
      "{% for m in messages %}{% set z = \(expression) %}{{ m.content }}{% endfor %}")
    let message = Value.dictionary(
      try Mapping([
        (MarkedText("role"), .text("user")), (MarkedText("content"), .text("word", isData: true)),
      ]))
    var limits = Limits(templateByteCount: 200, inputByteCount: 40_000)
    limits.nanoseconds = .max
    let text = try template.render(
      [("messages", .list(of: Array(repeating: message, count: 1000)))], limits,
      Clock(seconds: 0)
    ).text
    #expect(text.bytes.count == 4000)
  }

  /// Bytes that are counted for each element of a list of 1,000 integers, or of a dictionary.
  @Test(arguments: [
    ("n[:]", 32...42), ("n + n", 64...84), ("n * 2", 64...84), ("n|reverse|list", 32...42),
    ("n|select('odd')|list", 16...21), ("n|batch(1000)|list", 32...42),
    ("n|batch(999, 7)|list", 64...84), ("range(1000)|list", 32...42), ("n is iterable", 0...0),
    ("n|list", 0...0), ("n|sort", 128...256), ("n|unique|list", 128...256), ("n|join", 1...8),
    ("n|map('string')|list", 128...136), ("'ab'|list * 500", 32...42), ("1 in d.values()", 0...0),
    ("1 in d.items()", 128...128), ("d|tojson|length", 4...12), ("dict(d)|length", 256...256),
    ("d == d", 0...0), ("(namespace(d), 1)", 128...140), ("d.items()|string|length", 128...160),
    ("([{'x': 1}] * 1000)|groupby('x')|list", 256...384), ("range(1000).count(none)", 32...42),
  ])
  func `What is counted for memory is what it takes`(
    expression: String, bytes: ClosedRange<Int>
  ) throws {
    let template = try Template("{% set z = \(expression) %}")
    let pairs = (0..<1000).map { (MarkedText("\($0)"), Value.integer(0)) }
    let values = try template.render(
      [
        ("n", try .list(of: (0..<1000).map { .integer($0) })),
        ("d", .dictionary(try Mapping(pairs))),
      ], Limits(templateByteCount: 100, inputByteCount: 10_000), Clock(seconds: 0)
    ).values
    #expect((bytes.lowerBound * 1000...bytes.upperBound * 1000 + 999).contains(values))
  }

  @Test func `Templates nested too deep do not parse`() {
    let parentheses =
      "{{ " + String(repeating: "(", count: 9999) + "1" + String(repeating: ")", count: 9999)
      + " }}"
    #expect(kind(parentheses) == .limit)
    #expect(kind("{{ " + String(repeating: "not ", count: 9999) + "1 }}") == .limit)
    #expect(kind("{{ " + String(repeating: "- ", count: 9999) + "1 }}") == .limit)
    #expect(kind("{{ 1" + String(repeating: " + 1", count: 9999) + " }}") == .limit)
    #expect(kind("{{ x" + String(repeating: ".x", count: 9999) + " }}") == .limit)
    #expect(kind("{{ 1" + String(repeating: "|string", count: 9999) + " }}") == .limit)
    #expect(kind(String(repeating: "{% if 1 %}", count: 9999)) == .limit)
    #expect(kind("{{ 1" + String(repeating: " if 1 else 1", count: 9999) + " }}") == .limit)
  }

  @Test func `What is empty, or holds itself, is written at once`() throws {
    func text(_ template: String) throws -> String {
      String(decoding: try Template(template).render([], inputByteCount: 0).bytes, as: UTF8.self)
    }
    #expect(try text("{{ [] * 9223372036854775807 }}{{ () * 10 ** 18 }}") == "[]()")
    #expect(
      try text("{% set n = namespace() %}{% set n.a = n %}{{ n }}")
        == "<Namespace {'a': <Namespace {...}>}>")
    // Python leaves out what lies in a list that is being written; here it is the namespace.
    #expect(
      try text("{% set n = namespace() %}{% set n.a = [{'b': n}] %}{{ n.a }}").contains("{...}"))
  }

  @Test func `A namespace that holds itself is let go of`() {
    #expect(kind("{% set n = namespace() %}{% set n.n = n %}{{ n.n is defined }}") == nil)
    #expect(
      kind(
        "{% set p = namespace() %}{% set q = namespace(p=p) %}{% for i in range(9000) %}"
          + "{% set m = namespace() %}{% set l = q.p %}{% set l.x = m %}{% set q.p = m %}{% endfor %}"
      ) == nil)
  }

  @Test func `An error names line, column and kind`() throws {
    let source = "{% if true %}\n  {{ messages.x.y }}\n{% endif %}\n"
    let template = try Template(source)
    let error = #expect(throws: JinjaError.self) {
      _ = try template.render([], inputByteCount: 0)
    }
    #expect(error?.line == 2)
    #expect(error?.column == 14)
    #expect(error?.kind == .undefined)
    #expect(error?.description == "line 2, column 14: 'messages' is undefined")
    #expect(kind("{{ raise_exception('no') }}") == .raised)
    #expect(kind("{{ [].append(1) }}") == .undefined)
    #expect(kind("{{ 'a'|pprint }}") == .unsupported)
    #expect(kind("{% nonsense %}") == .syntax)
    #expect(kind("{{ 1 / 0 }}") == .value)
    #expect(kind("{{ 1 + 'a' }}") == .type)
  }

  @Test func `The texts that a template can write are known`() throws {
    let template = try Template(
      "<s>{{ '[INST] ' 'x' }}{% if a == \"b\" %}{% raw %}{{{% endraw %}{% endif %}")
    let literals = template.literals.map { String(decoding: $0, as: UTF8.self) }
    #expect(literals == ["<s>", "[INST] x", "b", "{{"])
  }
}
