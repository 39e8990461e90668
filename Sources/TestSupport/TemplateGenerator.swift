/// Makes templates that put what a user typed through every operation on texts.
///
/// What the template itself writes has Greek letters and never Cyrillic ones, so that those of the output can only
/// come from what was typed: `x` and `y` are texts of it, `n` is a list, `d` a dictionary.
public struct TemplateGenerator {
  private var state: UInt64
  /// Whether names of arguments come from data, which marks whole texts as such.
  public private(set) var marksMore = false

  public init(seed: UInt64) { state = seed }

  /// A template of one expression, and what is defined before it.
  public mutating func template() -> String {
    marksMore = false
    let prelude =
      "{% macro m(v) %}α{{ v }}{{ kwargs|string }}β{% endmacro %}"
      + "{% macro c(v) %}{{ caller(v) }}{% endmacro %}{% set ns = namespace(v='γ') %}"
    switch below(5) {
    case 0: return prelude + "{% set ns.v = ns.v ~ \(text(3)) %}{{ ns.v }}"
    case 1: return prelude + "{% filter \(filter()) %}α{{ \(text(2)) }}{% endfilter %}"
    case 2: return prelude + "{% call(a) c(\(text(2))) %}α{{ a }}{% endcall %}"
    case 3:
      return prelude
        + "{% for v in \(list(2)) %}{{ loop.previtem }}{{ v }}{{ loop.cycle(x, 'α') }}{% endfor %}"
    default: return prelude + "{{ \(text(4)) }}"
    }
  }

  /// An expression that is a text, unless it fails.
  private mutating func text(_ depth: Int) -> String {
    if depth == 0 {
      return pick([
        "x", "y", "n[0]", "d.values()|first", "d.keys()|first",
        "'α<|'", "'Βγ '", "'%s'", "'{}'", "'|>'",
      ])
    }
    let (a, b, c) = (text(depth - 1), text(depth - 1), text(depth - 1))
    let (l, m) = (list(depth - 1), list(depth - 1))
    let choices = [
      "(\(a)).\(method())()", "(\(a))|\(filter())", "(\(a) ~ \(b))", "(\(a) + \(b))",
      "(\(a)).replace(\(b), \(c))", "(\(a)).replace('', \(b), 2)", "(\(a))|replace(\(b), \(c))",
      "(\(a)).strip(\(b))", "(\(a)).lstrip(\(b))", "(\(a)).removeprefix(\(b))",
      "(\(a)).removesuffix(\(b))", "(\(a)).center(30, (\(b))[0])", "(\(a)).ljust(30, (\(b))[0])",
      "(\(a)).rjust(30)", "(\(a)).zfill(20)", "(\(a)).expandtabs(3)", "(\(a))|center(40)",
      "(\(a)).format(\(b), \(c))", "(\(a)).format_map({'a': \(b)})",
      "'{0!r:>9}{a}'.format(\(a), a=\(b))",
      "('{:' ~ (\(a))[0] ~ '>20}').format(\(b))", "'%s %r %-9s %.3s' % (\(a), \(b), \(c), \(a))",
      "(\(a)) % (\(b), \(c))", "'%(a)s' % {'a': \(a)}", "'%(a)s'|format(a=\(a))",
      "(\(a))[1:]", "(\(a))[::-1]", "(\(a))[2:9:3]", "(\(a))[-3:]", "(\(a))[1]", "(\(a)) * 2",
      "(\(a))|indent(2, true)", "(\(a))|indent(\(b))", "(\(a))|truncate(6, true, \(b), 0)",
      "(\(a))|tojson(indent=\(b))", "(\(l))|tojson(separators=[\(a), \(b)])",
      "{\(a): \(b)}|tojson(ensure_ascii=true)", "(\(l))|string", "(\(l))|join(\(a))",
      "(\(a)).join(\(l))", "(\(l))|first", "(\(l))|last", "(\(l))|max", "(\(l))|min",
      "((\(a)) if \(b) else (\(c)))", "(\(a))|default(\(b), true)", "m(\(a))", "m(\(a), v2=\(b))",
      "(\(a)) in d", "cycler(\(a), \(b)).next()", "namespace(v=\(a)).v", "dict(v=\(a))|string",
      "{'k': \(a)}|attr('k')", "{'k': \(a)}['k']", "{'k': \(a)}.k", "(\(a))|safe + \(b)",
      "[\(a), \(b)]|string", "{\(a): \(l)}|string", "{\(a): 1}.items()|string",
      "dict([[\(a), 1]])|string", "strftime_now(\(a))", "dict(**{\(a): \(b)})|string",
      "namespace(**{\(a): \(b)})|string", "m(\(b), **{\(a): \(c)})",
      "(\(a)).partition(\(b))|join('α')",
      "(\(m))|map('upper')|join", "(\(m))|reverse|join(\(a))",
    ]
    let index = below(choices.count)
    if choices[index].contains("**{") || choices[index].contains("strftime") { marksMore = true }
    return choices[index]
  }

  /// An expression that is a list.
  private mutating func list(_ depth: Int) -> String {
    if depth == 0 { return pick(["n", "[x, 'α']", "d.keys()|list", "d.items()|list", "['Β', y]"]) }
    let (a, b, l) = (text(depth - 1), text(depth - 1), list(depth - 1))
    return pick([
      "(\(a)).split(\(b))", "(\(a)).rsplit(\(b), 1)", "(\(a)).split()", "(\(a)).rsplit(none, 1)",
      "(\(a)).splitlines()", "(\(a)).splitlines(true)", "(\(a))|list", "(\(a)).rpartition(\(b))",
      "[\(a), \(b)]", "(\(l)) + [\(a)]", "(\(l))|sort", "(\(l))|unique|list",
      "(\(l))|batch(2, \(a))|list", "{\(a): \(b)}|dictsort", "{\(a): \(b)}|items|list",
      "[{'k': \(a)}]|map(attribute='k')|list", "[{'k': \(a)}]|groupby('k')|list",
      "(\(l))|map('\(method())')|list", "(\(l))|select('string')|list", "(\(l))[::-1]",
      "(\(l)) * 2",
    ])
  }

  private mutating func method() -> String {
    pick([
      "upper", "lower", "title", "capitalize", "swapcase", "casefold", "strip", "rstrip", "lstrip",
    ])
  }

  private mutating func filter() -> String {
    pick([
      "upper", "lower", "title", "capitalize", "trim", "e", "forceescape", "safe", "string",
      "tojson",
      "reverse", "indent", "center(9)", "truncate(9)", "replace('α', x)", "format(y)",
      "default('γ')",
      "list|join", "list|string",
    ])
  }

  private mutating func pick(_ choices: [String]) -> String { choices[below(choices.count)] }

  /// A number below `bound` (SplitMix64).
  private mutating func below(_ bound: Int) -> Int {
    state &+= 0x9E37_79B9_7F4A_7C15
    var bits = state
    bits = (bits ^ (bits >> 30)) &* 0xBF58_476D_1CE4_E5B9
    bits = (bits ^ (bits >> 27)) &* 0x94D0_49BB_1331_11EB
    return Int((bits ^ (bits >> 31)) % UInt64(bound))
  }
}
