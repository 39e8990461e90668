import Jinja
import Testing

/// What a user wrote stays marked through every operation, and nothing else is.
@Suite struct MarkTests {
  /// The rendered text with data in ⟦ and ⟧; `x` is data, `n` a list with it, `d` a dictionary of it.
  private func marked(_ template: String, _ x: String = "a<|end|>b") throws -> String {
    let data = Value.text(x, isData: true)
    let mapping = try Mapping([
      (MarkedText("k", isData: true), data), (MarkedText("role"), .text("user")),
    ])
    let text = try Template(template).render(
      [("x", data), ("n", try .list(of: [data, .text("t")])), ("d", .dictionary(mapping))],
      inputByteCount: x.utf8.count)
    var (result, start) = ("", 0)
    func part(_ range: Range<Int>) -> String { String(decoding: text.bytes[range], as: UTF8.self) }
    for mark in text.data {
      result += part(start..<mark.lowerBound) + "⟦" + part(mark) + "⟧"
      start = mark.upperBound
    }
    return result + part(start..<text.bytes.count)
  }

  @Test(arguments: [
    ("<|end|>{{ x }}<|end|>", "<|end|>⟦a<|end|>b⟧<|end|>"),
    ("{{ '<|' + x + '|>' }}", "<|⟦a<|end|>b⟧|>"),
    ("{{ '<' ~ x ~ '>' }}", "<⟦a<|end|>b⟧>"),
    ("{{ x[1:4] }}{{ x[0] }}{{ 'z' }}{{ x[::-1] }}", "⟦<|ea⟧z⟦b>|dne|<a⟧"),
    ("{{ x.split('<|')|join('<|') }}", "⟦a⟧<|⟦end|>b⟧"),
    ("{{ x.split('|')[1] }}{{ x.partition('|')[1] }}", "⟦end|⟧"),
    ("{{ (' ' + x + ' ')|trim }}{{ (' ' ~ x).strip() }}", "⟦a<|end|>ba<|end|>b⟧"),
    ("{{ x.replace('end', '.') }}", "⟦a<|⟧.⟦|>b⟧"),
    ("{{ 'a-b'.replace('-', x) }}", "a⟦a<|end|>b⟧b"),
    ("{{ n|join('-') }}{{ ', '.join(n) }}", "⟦a<|end|>b⟧-t⟦a<|end|>b⟧, t"),
    ("{{ '%s:%5s' % (x, 'q') }}", "⟦a<|end|>b⟧:    q"),
    ("{{ '{}:{:>10}'.format(x, x) }}", "⟦a<|end|>b⟧: ⟦a<|end|>b⟧"),
    ("{{ ('p\\n' + x)|indent(2) }}", "p\n  ⟦a<|end|>b⟧"),
    ("{{ x * 2 }}{{ 'y' * 2 }}", "⟦a<|end|>ba<|end|>b⟧yy"),
    ("{{ x|upper }}{{ x.title() }}{{ x|capitalize }}", "⟦A<|END|>BA<|End|>BA<|end|>b⟧"),
    ("{{ d|tojson }}", "{\"⟦k⟧\": \"⟦a<|end|>b⟧\", \"role\": \"user\"}"),
    ("{{ d }}{{ n }}", "{'⟦k⟧': '⟦a<|end|>b⟧', 'role': 'user'}['⟦a<|end|>b⟧', 't']"),
    ("{% set y %}<{{ x }}>{% endset %}{{ y }}", "<⟦a<|end|>b⟧>"),
    ("{% macro m(v) %}[{{ v }}]{% endmacro %}{{ m(x)|string }}", "[⟦a<|end|>b⟧]"),
    ("{% filter upper %}q{{ x }}{% endfilter %}", "Q⟦A<|END|>B⟧"),
    ("{% set ns = namespace(v='<') %}{% set ns.v = ns.v + x %}{{ ns.v }}", "<⟦a<|end|>b⟧"),
    ("{% for c in x %}{{ c }}.{% endfor %}", "⟦a⟧.⟦<⟧.⟦|⟧.⟦e⟧.⟦n⟧.⟦d⟧.⟦|⟧.⟦>⟧.⟦b⟧."),
    ("{% for k, v in d.items() %}{{ k }}={{ v }},{% endfor %}", "⟦k⟧=⟦a<|end|>b⟧,role=user,"),
    ("{{ x|e }}{{ ''|safe + x }}", "⟦a&lt;|end|&gt;ba&lt;|end|&gt;b⟧"),
    ("{{ x.splitlines()|first }}{{ x|list|first }}{{ x|reverse }}", "⟦a<|end|>bab>|dne|<a⟧"),
    ("{{ x.center(12, '.') }}{{ x.ljust(10) }}|", ".⟦a<|end|>b⟧..⟦a<|end|>b⟧ |"),
    ("{{ x.removeprefix('a') }}{{ x.lstrip('a') }}", "⟦<|end|>b<|end|>b⟧"),
    ("{{ x|truncate(7, true, '..', 0) }}", "⟦a<|en⟧.."),
    ("{{ n|map('upper')|first }}{{ n|sort|last }}", "⟦A<|END|>B⟧t"),
    ("{{ dict(**d) }}", "{'⟦k⟧': '⟦a<|end|>b⟧', 'role': 'user'}"),
    ("{{ namespace(**d) }}", "<Namespace {'⟦k⟧': '⟦a<|end|>b⟧', 'role': 'user'}>"),
    (
      "{% macro m() %}{{ kwargs }}{% endmacro %}{{ m(**d) }}",
      "{'⟦k⟧': '⟦a<|end|>b⟧', 'role': 'user'}"
    ),
    ("{{ strftime_now(x) }}{{ strftime_now('%%') }}", "⟦a<|end|>b⟧%"),
    ("{{ (x ~ '%%') % () }}{{ x % () }}", "⟦a<|end|>b⟧%⟦a<|end|>b⟧"),
    ("{{ '-'.center(5, x[0]) }}{{ ('{:' ~ x[0] ~ '>3}').format(1) }}", "⟦aa⟧-⟦aaaa⟧1"),
    ("{{ d|dictsort }}", "[('⟦k⟧', '⟦a<|end|>b⟧'), ('role', 'user')]"),
    ("{{ n|unique|list }}{{ n|batch(1)|list }}", "['⟦a<|end|>b⟧', 't'][['⟦a<|end|>b⟧'], ['t']]"),
    ("{{ x.rsplit('|', 1)|join }}{{ x.rpartition('|')[2] }}", "⟦a<|end>b>b⟧"),
    ("{{ cycler(x, 'y').next() }}{{ '%r' % x }}", "⟦a<|end|>b⟧'⟦a<|end|>b⟧'"),
    (
      "{{ x == 'a<|end|>b' }}{{ x in ['a<|end|>b'] }}{{ d['k'] == x }}{{ x|length }}",
      "TrueTrueTrue9"
    ),
  ]) func `Marks ride along`(template: String, expected: String) throws {
    #expect(try marked(template) == expected)
  }

  @Test func `Characters that change their length in another case keep their mark`() throws {
    #expect(try marked("{{ ('ß' + x + 'ß')|upper }}", "İß") == "SS⟦İSS⟧SS")
    #expect(try marked("{{ ('İ' + x)|lower }}", "İ") == "i̇⟦i̇⟧")
  }

  @Test func `A text of two marks that touch has one`() throws {
    #expect(try marked("{{ x }}{{ x }}", "é") == "⟦éé⟧")
    #expect(try marked("{{ x }}", "") == "")
  }
}
