/// Why a grammar, a schema or a pattern is refused.
public struct GrammarError: Error, Sendable, Equatable, CustomStringConvertible {
  /// Where the reason lies.
  public enum Place: Sendable, Equatable {
    /// In bytes from the beginning of a grammar or pattern.
    case offset(Int)
    /// JSON pointer to a part of a schema.
    case pointer(String)
    case whole
  }

  public let place: Place
  public let reason: String

  init(_ reason: String, at place: Place = .whole) {
    self.place = place
    self.reason = reason
  }

  public var description: String {
    switch place {
    case .offset(let offset): "at byte \(offset): \(reason)"
    case .pointer(let pointer): "at \(pointer): \(reason)"
    case .whole: reason
    }
  }

  /// The same reason, at a part of a schema.
  func moved(to pointer: String) -> GrammarError {
    if case .offset(let offset) = place {
      return GrammarError("\(reason) (at byte \(offset) of it)", at: .pointer(pointer))
    }
    return place == .whole ? GrammarError(reason, at: .pointer(pointer)) : self
  }
}

/// What no grammar may exceed, so that a hostile one costs little.
enum GrammarLimits {
  /// How much of the usual memory a grammar may take while it is compiled; what follows is bounded by that as well.
  @TaskLocal static var share = 1.0

  private static func shared(_ most: Int) -> Int { Int(Double(most) * share) }

  /// Bytes of a grammar's or a pattern's text.
  static let sourceByteCount = 1 << 20
  /// Edges of the automata of all rules: 12 bytes each.
  static var edgeCount: Int { shared(1 << 17) }
  static var ruleCount: Int { shared(1 << 16) }
  /// Groups within groups.
  static let depth = 100
  /// States of an automaton that is made deterministic.
  static var stateCount: Int { shared(20_000) }
  /// Work on such an automaton, in items of its states.
  static var determinisationWork: Int { shared(1_000_000) }
  /// Ways in which a schema's alternatives can be combined.
  static let alternativeCount = 512
}
