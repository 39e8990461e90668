import TensorBasics

/// A random grammar, and whether texts begin or are an answer of it by trying everything: slow, and plainly right.
struct NaiveGrammar {
  indirect enum Expression {
    case text([UInt8])
    case range(UInt8, UInt8)
    case sequence([Expression])
    case choice([Expression])
    case repetition(Expression, Int, Int?)
    case rule(Int)
  }

  private(set) var rules: [Expression] = []
  private static let letters: [UInt8] = Array("abc".utf8)

  /// A rule calls later rules anywhere, and earlier ones after it has read something: nothing is left-recursive.
  init(_ generator: inout SeededGenerator) {
    let count = Int.random(in: 1...5, using: &generator)
    for number in 0..<count {
      rules.append(Self.expression(&generator, number, of: count, depth: 0))
    }
  }

  private static func expression(
    _ generator: inout SeededGenerator, _ rule: Int, of count: Int, depth: Int
  ) -> Expression {
    let letter = letters.randomElement(using: &generator)!
    if depth > 3 { return .text([letter]) }
    func part() -> Expression { expression(&generator, rule, of: count, depth: depth + 1) }
    switch Int.random(in: 0..<8, using: &generator) {
    case 0: return .text([letter, letters.randomElement(using: &generator)!])
    case 1: return .range(0x61, letter)
    case 2: return .sequence((0..<Int.random(in: 0...3, using: &generator)).map { _ in part() })
    case 3: return .choice((0..<Int.random(in: 1...3, using: &generator)).map { _ in part() })
    case 4: return .repetition(part(), Int.random(in: 0...1, using: &generator), nil)
    case 5:
      let minimum = Int.random(in: 0...2, using: &generator)
      return .repetition(part(), minimum, minimum + Int.random(in: 0...2, using: &generator))
    case 6 where rule + 1 < count:
      return .rule(Int.random(in: rule + 1..<count, using: &generator))
    case 7:
      return .sequence([.text([letter]), .rule(Int.random(in: 0..<count, using: &generator))])
    default: return .text([letter])
    }
  }

  /// In GBNF.
  var text: String {
    rules.enumerated().map { number, body in
      "\(number == 0 ? "root" : "r\(number)") ::= \(Self.text(body))"
    }.joined(separator: "\n")
  }

  private static func text(_ body: Expression) -> String {
    switch body {
    case .text(let bytes): "\"\(String(decoding: bytes, as: UTF8.self))\""
    case .range(let low, let high): "[\(Unicode.Scalar(low))-\(Unicode.Scalar(high))]"
    case .sequence(let parts): "(\(parts.map { text($0) }.joined(separator: " ")))"
    case .choice(let parts): "(\(parts.map { text($0) }.joined(separator: " | ")))"
    case .repetition(let body, let minimum, let maximum):
      "\(text(body)){\(minimum),\(maximum.map { "\($0)" } ?? "")}"
    case .rule(let number): number == 0 ? "root" : "r\(number)"
    }
  }

  /// Where a match of the root can end in `bytes`, and whether one can go on beyond their end.
  func read(_ bytes: [UInt8]) -> (ends: Set<Int>, goesOn: Bool) {
    var reader = Reader(rules: rules, bytes: bytes)
    let ends = reader.ends(.rule(0), from: 0)
    return (ends, reader.goesOn)
  }

  private struct Reader {
    let rules: [Expression]
    let bytes: [UInt8]
    var goesOn = false
    private var known: [[Int]: Set<Int>] = [:]

    init(rules: [Expression], bytes: [UInt8]) {
      self.rules = rules
      self.bytes = bytes
    }

    mutating func ends(_ body: Expression, from start: Int) -> Set<Int> {
      switch body {
      case .text(let text):
        for (offset, byte) in text.enumerated() {
          guard start + offset < bytes.count else {
            goesOn = true
            return []
          }
          guard bytes[start + offset] == byte else { return [] }
        }
        return [start + text.count]
      case .range(let low, let high):
        guard start < bytes.count else {
          goesOn = true
          return []
        }
        return low <= bytes[start] && bytes[start] <= high ? [start + 1] : []
      case .sequence(let parts):
        return parts.reduce(into: [start]) { places, part in
          places = Set(places.flatMap { ends(part, from: $0) })
        }
      case .choice(let parts): return Set(parts.flatMap { ends($0, from: start) })
      case .repetition(let body, let minimum, let maximum):
        var (places, result): (Set<Int>, Set<Int>) = ([start], minimum == 0 ? [start] : [])
        var count = 0
        while count < maximum ?? (minimum + bytes.count + 1), !places.isEmpty {
          places = Set(places.flatMap { ends(body, from: $0) })
          count += 1
          if count >= minimum { result.formUnion(places) }
        }
        return result
      case .rule(let number):
        if let found = known[[number, start]] { return found }
        let found = ends(rules[number], from: start)
        known[[number, start]] = found
        return found
      }
    }
  }
}
