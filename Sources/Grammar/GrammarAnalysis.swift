/// What is known of a grammar's nodes and rules as a whole.
struct GrammarAnalysis {
  /// Of each node, whether a text leads from it to the end of its rule.
  private(set) var isProductive: [Bool]
  /// Of each rule, whether it matches the empty text.
  private(set) var isNullable: [Bool]
  /// A rule that can call itself before anything is read.
  private(set) var leftRecursiveRule: Int?

  private let builder: GrammarBuilder
  /// Numbers of the edges that leave each node.
  private let leaving: Adjacency

  /// Numbers of edges, by node.
  private struct Adjacency {
    private var starts: [Int32]
    private var numbers: [Int32]

    init(_ builder: GrammarBuilder, by node: (GrammarBuilder.Edge) -> Int) {
      starts = Array(repeating: 0, count: builder.nodeCount + 1)
      for edge in builder.edges { starts[node(edge) + 1] += 1 }
      for index in 1..<starts.count { starts[index] += starts[index - 1] }
      numbers = Array(repeating: 0, count: builder.edges.count)
      var next = starts
      for (number, edge) in builder.edges.enumerated() {
        numbers[Int(next[node(edge)])] = Int32(number)
        next[node(edge)] += 1
      }
    }

    subscript(node: Int) -> ArraySlice<Int32> { numbers[Int(starts[node])..<Int(starts[node + 1])] }
  }

  init(_ builder: GrammarBuilder) {
    self.builder = builder
    leaving = Adjacency(builder) { $0.from }
    let entering = Adjacency(builder) { $0.to }
    isProductive = Self.reaching(builder, entering) { _ in true }
    let nullable = Self.reaching(builder, entering) { $0 == .nothing }
    isNullable = builder.rules.map { nullable[$0.start] }
    leftRecursiveRule = findLeftRecursion()
  }

  /// The nodes from which the end of their rule is reached along edges that `follows` admits, and calls of such rules.
  private static func reaching(
    _ builder: GrammarBuilder, _ entering: Adjacency,
    _ follows: (GrammarBuilder.Edge.Step) -> Bool
  ) -> [Bool] {
    var reaches = [Bool](repeating: false, count: builder.nodeCount)
    var open: [Int] = []
    var ruleOfStart: [Int: Int] = [:]
    var callers = [[Int]](repeating: [], count: builder.rules.count)
    for (number, rule) in builder.rules.enumerated() {
      ruleOfStart[rule.start] = number
      reaches[rule.end] = true
      open.append(rule.end)
    }
    for (number, edge) in builder.edges.enumerated() {
      if case .call(let rule) = edge.step { callers[rule].append(number) }
    }
    func mark(_ node: Int) {
      guard !reaches[node] else { return }
      reaches[node] = true
      open.append(node)
    }
    while let node = open.popLast() {
      for number in entering[node] {
        let edge = builder.edges[Int(number)]
        if case .call(let rule) = edge.step {
          if reaches[builder.rules[rule].start] { mark(edge.from) }
        } else if follows(edge.step) {
          mark(edge.from)
        }
      }
      guard let rule = ruleOfStart[node] else { continue }
      for number in callers[rule] where reaches[builder.edges[number].to] {
        mark(builder.edges[number].from)
      }
    }
    return reaches
  }

  /// Rules that are called before anything is read, from a rule's beginning.
  private func firstCalls(of rule: Int) -> [Int] {
    var calls: Set<Int> = []
    var open = [builder.rules[rule].start]
    var seen = Set(open)
    while let node = open.popLast() {
      for number in leaving[node] {
        let edge = builder.edges[Int(number)]
        switch edge.step {
        case .bytes: continue
        case .nothing: break
        case .call(let callee):
          calls.insert(callee)
          guard isNullable[callee] else { continue }
        }
        if seen.insert(edge.to).inserted { open.append(edge.to) }
      }
    }
    return calls.sorted()
  }

  /// Looks for a cycle of first calls, depth first.
  private func findLeftRecursion() -> Int? {
    enum State { case new, open, done }
    var states = [State](repeating: .new, count: builder.rules.count)
    for first in builder.rules.indices where states[first] == .new {
      var path: [(rule: Int, calls: [Int])] = [(first, firstCalls(of: first))]
      states[first] = .open
      while !path.isEmpty {
        guard let next = path[path.count - 1].calls.popLast() else {
          states[path.removeLast().rule] = .done
          continue
        }
        switch states[next] {
        case .open: return builder.rules[next].name.isEmpty ? path[0].rule : next
        case .done: continue
        case .new:
          states[next] = .open
          path.append((next, firstCalls(of: next)))
        }
      }
    }
    return nil
  }
}

/// A grammar's useful nodes and edges, in the order in which they are reached from its root.
struct GrammarLayout {
  private(set) var nodes: [CompiledGrammar.Node] = []
  private(set) var edges: [CompiledGrammar.Edge] = []
  private(set) var root: UInt32 = 0
  private var order: [Int] = []
  private var numbers: [Int]

  init(_ builder: GrammarBuilder, _ analysis: GrammarAnalysis, root rule: Int) {
    numbers = Array(repeating: -1, count: builder.nodeCount)
    var leaving = [[GrammarBuilder.Edge]](repeating: [], count: builder.nodeCount)
    for edge in builder.edges where analysis.isProductive[edge.to] {
      if case .call(let rule) = edge.step,
        !analysis.isProductive[builder.rules[rule].start]
      {
        continue
      }
      leaving[edge.from].append(edge)
    }
    let ends = Set(builder.rules.map(\.end))
    // A node that only leads on without reading is where it leads to.
    func resolve(_ node: Int) -> Int {
      var node = node
      var steps = 0
      while !ends.contains(node), leaving[node].count == 1, leaving[node][0].step == .nothing,
        steps < 64
      {
        node = leaving[node][0].to
        steps += 1
      }
      return node
    }
    root = UInt32(number(of: resolve(builder.rules[rule].start)))
    var index = 0
    while index < order.count {
      let node = order[index]
      index += 1
      var entry = CompiledGrammar.Node(firstEdge: UInt32(edges.count))
      entry.isEnd = ends.contains(node)
      entry.isTail = entry.isEnd && leaving[node].isEmpty
      for edge in leaving[node] {
        let target = UInt32(number(of: resolve(edge.to)))
        switch edge.step {
        case .bytes(let range):
          entry.readsBytes = true
          edges.append(
            CompiledGrammar.Edge(
              kind: .bytes, low: range.lowerBound, high: range.upperBound, target: target))
        case .nothing: edges.append(CompiledGrammar.Edge(kind: .nothing, target: target))
        case .call(let rule):
          let callee = UInt32(number(of: resolve(builder.rules[rule].start)))
          edges.append(CompiledGrammar.Edge(kind: .call, target: target, callee: callee))
        }
      }
      nodes.append(entry)
    }
    nodes.append(CompiledGrammar.Node(firstEdge: UInt32(edges.count)))
  }

  private mutating func number(of node: Int) -> Int {
    if numbers[node] < 0 {
      numbers[node] = order.count
      order.append(node)
    }
    return numbers[node]
  }
}
