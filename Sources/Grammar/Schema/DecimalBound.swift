import ModelFormat

/// A number that others are compared with, digit by digit.
struct DecimalBound {
  private let isNegative: Bool
  /// Digits before the point, without zeros at the beginning but for one alone; and after it, without zeros at the end.
  private let whole: [UInt8]
  private let fraction: [UInt8]

  /// What a number may be to the bound.
  struct Relation: OptionSet {
    let rawValue: UInt8
    static let less = Relation(rawValue: 1)
    static let equal = Relation(rawValue: 2)
    static let greater = Relation(rawValue: 4)
  }

  /// - Returns: nil where it is no number, or beyond 10^300.
  init?(_ value: JSONValue) {
    let text: String
    switch value.content {
    case .integer(let value): text = "\(value)"
    case .wideInteger(let digits): text = digits
    case .number(let value): text = "\(value)"
    default: return nil
    }
    isNegative = text.hasPrefix("-")
    let pieces = text.drop { $0 == "-" }.split(whereSeparator: { $0 == "e" || $0 == "E" })
    guard let mantissa = pieces.first else { return nil }
    let halves = mantissa.split(separator: ".", omittingEmptySubsequences: false)
    var digits = halves.joined().utf8.map { $0 - 0x30 }
    guard digits.allSatisfy({ $0 < 10 }) else { return nil }
    var point = halves[0].utf8.count
    if pieces.count > 1 {
      guard let exponent = Int(pieces[1]) else { return nil }
      point += exponent
    }
    guard (-400...400).contains(point), digits.count < 400 else { return nil }
    while point > digits.count { digits.append(0) }
    while point < 1 {
      digits.insert(0, at: 0)
      point += 1
    }
    let before = digits[..<point].drop { $0 == 0 }
    whole = before.isEmpty ? [0] : Array(before)
    let after = digits[point...]
    fraction = Array(after[..<((after.lastIndex { $0 != 0 } ?? point - 1) + 1)])
  }

  var wholeDigitCount: Int { whole.count }
  private var isZero: Bool { whole == [0] && fraction.isEmpty }

  /// Accepts numbers without a sign that are in one of `relations` to it once they have a sign.
  func magnitudes(negated: Bool, _ relations: Relation) -> ByteAutomaton? {
    if isZero {
      guard negated else { return comparison(relations) }
      return comparison(Self.mirrored(relations))
    }
    if negated != isNegative {
      // All on the other side of zero, and zero itself.
      return relations.contains(negated ? .less : .greater) ? nil : ByteAutomaton(states: [.init()])
    }
    return comparison(negated ? Self.mirrored(relations) : relations)
  }

  private static func mirrored(_ relations: Relation) -> Relation {
    var result = relations.intersection(.equal)
    if relations.contains(.less) { result.insert(.greater) }
    if relations.contains(.greater) { result.insert(.less) }
    return result
  }

  /// Accepts magnitudes by how they compare with the bound's own.
  ///
  /// States: of the whole part, the digits read and how they compare so far; of the fraction, the digits read while all
  /// are equal, or what is known.
  private func comparison(_ relations: Relation) -> ByteAutomaton {
    let outcomes: [Relation] = [.less, .equal, .greater]
    var states: [ByteAutomaton.State] = []
    func accepts(_ relation: Relation) -> Bool { relations.contains(relation) }
    func edge(_ digits: ClosedRange<UInt8>, _ to: Int) -> ByteAutomaton.Edge {
      .init(bytes: (digits.lowerBound + 0x30)...(digits.upperBound + 0x30), to: to)
    }
    let (less, greater) = (1, 2)
    /// The fraction's state after so many equal digits.
    func equal(_ count: Int) -> Int { 3 + min(count, fraction.count) }
    let firstWhole = 3 + fraction.count + 1
    /// The whole part's state after so many digits.
    func whole(_ count: Int, _ outcome: Int) -> Int {
      firstWhole + (min(count, self.whole.count + 1) - 1) * 3 + outcome
    }
    func branches(_ digit: UInt8, _ lower: Int, _ same: Int, _ higher: Int) -> [ByteAutomaton.Edge]
    {
      (digit > 0 ? [edge(0...(digit - 1), lower)] : []) + [edge(digit...digit, same)]
        + (digit < 9 ? [edge((digit + 1)...9, higher)] : [])
    }
    states.append(
      .init(edges: branches(self.whole[0], whole(1, 0), whole(1, 1), whole(1, 2))))
    states.append(.init(edges: [edge(0...9, less)], isAccepting: accepts(.less)))
    states.append(.init(edges: [edge(0...9, greater)], isAccepting: accepts(.greater)))
    for count in 0...fraction.count {
      let digit = count < fraction.count ? fraction[count] : 0
      states.append(
        .init(
          edges: branches(digit, less, equal(count + 1), greater),
          isAccepting: accepts(count == fraction.count ? .equal : .less)))
    }
    for count in 1...(self.whole.count + 1) {
      for outcome in 0..<3 {
        let relation: Relation =
          count < self.whole.count ? .less : count > self.whole.count ? .greater : outcomes[outcome]
        let isDecided = relation != .equal
        let point = ByteAutomaton.Edge(
          bytes: 0x2E...0x2E, to: isDecided ? (relation == .less ? less : greater) : equal(0))
        let digits: [ByteAutomaton.Edge] =
          outcome == 1 && count < self.whole.count
          ? branches(
            self.whole[count], whole(count + 1, 0), whole(count + 1, 1), whole(count + 1, 2))
          : [edge(0...9, whole(count + 1, count < self.whole.count ? outcome : 2))]
        let isLess = relation == .equal && !fraction.isEmpty
        states.append(
          .init(edges: [point] + digits, isAccepting: accepts(isLess ? .less : relation)))
      }
    }
    return ByteAutomaton(states: states)
  }
}
