/// A deterministic automaton over bytes: for what only sets of texts can say, such as "all but these names".
struct ByteAutomaton: Sendable {
  struct Edge: Equatable, Sendable {
    var bytes: ClosedRange<UInt8>
    var to: Int
  }

  struct State: Sendable {
    /// Ascending, disjoint; other bytes are not accepted.
    var edges: [Edge] = []
    var isAccepting = false
  }

  /// The first is where it begins.
  private(set) var states: [State]

  init(states: [State]) { self.states = states }

  /// All texts of whole characters.
  static var anyText: ByteAutomaton {
    get throws(GrammarError) { try ByteAutomaton(.any(.scalar(.all))) }
  }

  /// Accepts what `expression` matches, which calls no rules.
  init(_ expression: Expression) throws(GrammarError) {
    var builder = GrammarBuilder(inlines: true)
    let rule = try builder.declare("")
    try builder.define(rule, as: expression)
    var subsets = SubsetConstruction(builder)
    states = try subsets.states(from: builder.rules[rule].start, to: builder.rules[rule].end)
  }

  /// Texts of at least and at most so many characters.
  init(minimum: Int, maximum: Int?) throws(GrammarError) {
    try self.init(.repetition(.scalar(.all), minimum: minimum, maximum: maximum))
  }

  /// Accepts exactly these texts.
  init(texts: [[UInt8]]) {
    states = [State()]
    for text in texts {
      var state = 0
      for byte in text {
        if let edge = states[state].edges.first(where: { $0.bytes.contains(byte) }) {
          state = edge.to
        } else {
          states.append(State())
          states[state].edges.append(Edge(bytes: byte...byte, to: states.count - 1))
          state = states.count - 1
        }
      }
      states[state].isAccepting = true
    }
    for index in states.indices {
      states[index].edges.sort { $0.bytes.lowerBound < $1.bytes.lowerBound }
    }
  }

  /// Accepts texts that have a word nowhere in them.
  ///
  /// - Precondition: the word is not empty.
  init(without word: [UInt8]) {
    // A state for each beginning of the word that a text may end with.
    states = word.indices.map { length in
      var state = State(isAccepting: true)
      for byte in UInt8.min...UInt8.max {
        let end = word[..<length] + [byte]
        let next = (0...end.count).last { end.suffix($0) == word.prefix($0) } ?? 0
        guard next < word.count else { continue }
        if let last = state.edges.last, last.to == next, last.bytes.upperBound + 1 == byte {
          state.edges[state.edges.count - 1].bytes = last.bytes.lowerBound...byte
        } else {
          state.edges.append(Edge(bytes: byte...byte, to: next))
        }
      }
      return state
    }
  }

  func accepts(_ text: some Sequence<UInt8>) -> Bool {
    var state = 0
    for byte in text {
      guard let edge = states[state].edges.first(where: { $0.bytes.contains(byte) }) else {
        return false
      }
      state = edge.to
    }
    return states[state].isAccepting
  }

  /// Whether it accepts nothing.
  var isEmpty: Bool { !states.contains(where: \.isAccepting) }

  /// What both accept.
  func intersection(_ other: ByteAutomaton) throws(GrammarError) -> ByteAutomaton {
    try product(other, keepsOther: true) { $0 && $1 }
  }

  /// What it accepts and the other does not.
  func subtracting(_ other: ByteAutomaton) throws(GrammarError) -> ByteAutomaton {
    try product(other, keepsOther: false) { $0 && !$1 }
  }

  private func product(
    _ other: ByteAutomaton, keepsOther: Bool, accepting: (Bool, Bool) -> Bool
  ) throws(GrammarError) -> ByteAutomaton {
    struct Pair: Hashable {
      var left: Int
      var right: Int?
    }
    var numbers = [Pair(left: 0, right: 0): 0]
    var pairs = [Pair(left: 0, right: 0)]
    var result: [State] = []
    while result.count < pairs.count {
      let pair = pairs[result.count]
      var state = State()
      state.isAccepting = accepting(
        states[pair.left].isAccepting, pair.right.map { other.states[$0].isAccepting } ?? false)
      let others = pair.right.map { other.states[$0].edges } ?? []
      for edge in states[pair.left].edges {
        for (bytes, right) in Self.cut(edge.bytes, by: others) where right != nil || !keepsOther {
          let next = Pair(left: edge.to, right: right)
          let number = numbers[next] ?? pairs.count
          if number == pairs.count {
            guard number < GrammarLimits.stateCount else { throw Self.tooLarge }
            numbers[next] = number
            pairs.append(next)
          }
          state.edges.append(Edge(bytes: bytes, to: number))
        }
      }
      result.append(state)
    }
    return ByteAutomaton(states: result).trimmed
  }

  /// The parts of a range, each with where `edges` lead from it.
  private static func cut(
    _ range: ClosedRange<UInt8>, by edges: [Edge]
  ) -> [(ClosedRange<UInt8>, Int?)] {
    var result: [(ClosedRange<UInt8>, Int?)] = []
    var next = Int(range.lowerBound)
    let end = Int(range.upperBound)
    for edge in edges where Int(edge.bytes.upperBound) >= next && next <= end {
      let (low, high) = (Int(edge.bytes.lowerBound), min(Int(edge.bytes.upperBound), end))
      guard low <= end else { break }
      if low > next { result.append((UInt8(next)...UInt8(low - 1), nil)) }
      result.append((UInt8(max(low, next))...UInt8(high), edge.to))
      next = high + 1
    }
    if next <= end { result.append((UInt8(next)...UInt8(end), nil)) }
    return result
  }

  /// Without states from which nothing is accepted.
  private var trimmed: ByteAutomaton {
    var sources = [[Int]](repeating: [], count: states.count)
    for (index, state) in states.enumerated() {
      for edge in state.edges { sources[edge.to].append(index) }
    }
    var isUseful = states.map(\.isAccepting)
    var open = states.indices.filter { isUseful[$0] }
    while let state = open.popLast() {
      for source in sources[state] where !isUseful[source] {
        isUseful[source] = true
        open.append(source)
      }
    }
    guard isUseful[0] else { return ByteAutomaton(states: [State()]) }
    var numbers = [Int](repeating: -1, count: states.count)
    var count = 0
    for index in states.indices where isUseful[index] {
      numbers[index] = count
      count += 1
    }
    return ByteAutomaton(
      states: states.indices.filter { isUseful[$0] }.map { index in
        var state = states[index]
        state.edges = state.edges.compactMap {
          isUseful[$0.to] ? Edge(bytes: $0.bytes, to: numbers[$0.to]) : nil
        }
        return state
      })
  }

  static var tooLarge: GrammarError {
    GrammarError(
      "the automaton of a pattern exceeds \(GrammarLimits.stateCount) states: simplify it")
  }
}

/// Makes an automaton deterministic.
private struct SubsetConstruction {
  private var edges: [[GrammarBuilder.Edge]]
  private var work = 0

  init(_ builder: GrammarBuilder) {
    edges = Array(repeating: [], count: builder.nodeCount)
    for edge in builder.edges { edges[edge.from].append(edge) }
  }

  mutating func states(from start: Int, to end: Int) throws(GrammarError) -> [ByteAutomaton.State] {
    var numbers: [[Int]: Int] = [:]
    var subsets = [try closure([start])]
    numbers[subsets[0]] = 0
    var result: [ByteAutomaton.State] = []
    while result.count < subsets.count {
      let subset = subsets[result.count]
      var state = ByteAutomaton.State()
      state.isAccepting = subset.contains(end)
      for (bytes, targets) in Self.transitions(of: subset.flatMap { edges[$0] }) {
        let next = try closure(targets)
        let number = numbers[next] ?? subsets.count
        if number == subsets.count {
          guard number < GrammarLimits.stateCount else { throw ByteAutomaton.tooLarge }
          numbers[next] = number
          subsets.append(next)
        }
        if let last = state.edges.last, last.to == number,
          last.bytes.upperBound < bytes.lowerBound, last.bytes.upperBound + 1 == bytes.lowerBound
        {
          state.edges[state.edges.count - 1].bytes = last.bytes.lowerBound...bytes.upperBound
        } else {
          state.edges.append(ByteAutomaton.Edge(bytes: bytes, to: number))
        }
      }
      result.append(state)
    }
    return result
  }

  /// All nodes that are reached without reading, ascending.
  private mutating func closure(_ nodes: some Sequence<Int>) throws(GrammarError) -> [Int] {
    var found = Set(nodes)
    var open = Array(found)
    while let node = open.popLast() {
      work += 1
      for edge in edges[node] where edge.step == .nothing && found.insert(edge.to).inserted {
        open.append(edge.to)
      }
    }
    guard work < GrammarLimits.determinisationWork else { throw ByteAutomaton.tooLarge }
    return found.sorted()
  }

  /// Disjoint ranges of bytes, ascending, and where each leads.
  private static func transitions(
    of edges: [GrammarBuilder.Edge]
  ) -> [(ClosedRange<UInt8>, Set<Int>)] {
    let steps = edges.compactMap { edge -> (ClosedRange<UInt8>, Int)? in
      if case .bytes(let range) = edge.step { (range, edge.to) } else { nil }
    }
    let starts = Set(
      steps.flatMap { [Int($0.0.lowerBound), Int($0.0.upperBound) + 1] } + [0, 256]
    ).sorted()
    return zip(starts, starts.dropFirst()).compactMap { start, next in
      let targets = Set(steps.lazy.filter { $0.0.contains(UInt8(start)) }.map(\.1))
      return targets.isEmpty ? nil : (UInt8(start)...UInt8(next - 1), targets)
    }
  }
}
