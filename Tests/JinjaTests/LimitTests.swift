import Jinja
import Testing

/// A template cannot use more than its bounds, and says where it tried.
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
      "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "{{ 'aaaa'.replace('', 'x' * 900000) }}",
      "{% macro f(n) %}{% for i in [1] recursive %}{{ loop([1]) }}{% endfor %}{% endmacro %}{{ f(1) }}",
      "{% set ns = namespace(g=[1]) %}{% for i in range(200) %}{% set ns.g = ns.g|map('string') %}{% endfor %}{{ ns.g|list }}",
      "{% set ns = namespace(g=[1]) %}{% for i in range(200) %}{% set ns.g = [ns.g] %}{% endfor %}",
    ]) func bounds(template: String)
  {
    #expect(kind(template) == .limit, "\(template)")
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
