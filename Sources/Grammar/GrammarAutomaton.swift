/// A grammar as a deterministic automaton, whose states are made when an answer first comes to them.
///
/// A state is the set of stacks that what was read so far may have left (`StackSets`); equal sets are one state, so
/// what is computed for a state serves every way there.
///
/// Work is bounded: what goes beyond it, with a hostile grammar, makes the automaton ``isExhausted``, and results since
/// the last ``allowWork()`` mean nothing.
final class GrammarAutomaton {
  let grammar: CompiledGrammar
  private var sets = StackSets()
  /// The set of each state.
  private(set) var states: [UInt32] = []
  /// The state of each set that is one.
  private var stateOfSet: [UInt32: State] = [:]
  /// Where each class of bytes leads from each state [state count, class count].
  private(set) var transitions: [State] = []
  /// By node, the stacks below it, while a transition is made [node count].
  private var seen: [UInt32]
  private var touched: [UInt32] = []
  private var open: [StackSets.Item] = []
  /// Whether the answer may end where the transition leads.
  private var isFinished = false

  typealias State = Int32
  /// Nothing can be read any more, and the answer is none.
  static let dead: State = -1
  /// It was not looked for where this leads.
  static let unknown: State = -2
  /// Work for the masks of one state, in items of sets that are looked at; what is kept costs more. Usual grammars need some
  /// thousands.
  static let usualWork = 1 << 22
  private let work: Int

  init(_ grammar: CompiledGrammar, work: Int = GrammarAutomaton.usualWork) {
    self.grammar = grammar
    self.work = work
    seen = Array(repeating: StackSets.none, count: grammar.nodes.count)
  }

  var classCount: Int { grammar.representatives.count }

  var byteCount: Int {
    sets.byteCount + 4 * (transitions.capacity + seen.count + touched.capacity)
      + 24 * states.count + 8 * open.capacity
  }

  /// Begins what may take a bounded amount of work.
  func allowWork() { sets.allow(work: work) }

  var isExhausted: Bool { sets.workLeft <= 0 }

  /// The state before anything is read.
  func start() -> State {
    open.append(StackSets.Item(node: grammar.root, below: StackSets.finished))
    return finishTransition()
  }

  /// Whether the answer may end here.
  func canEnd(_ state: State) -> Bool {
    state >= 0 && sets[states[Int(state)]].last?.node == StackSets.end
  }

  /// Whether nothing can follow.
  func mustEnd(_ state: State) -> Bool {
    state >= 0 && states[Int(state)] == StackSets.finished
  }

  /// Where a byte leads.
  func next(_ state: State, _ byte: UInt8) -> State {
    guard state >= 0 else { return Self.dead }
    let index = Int(state) * classCount + Int(grammar.classes[Int(byte)])
    if transitions[index] == Self.unknown {
      let next = makeTransition(from: state, reading: byte)
      guard !isExhausted else { return Self.dead }
      transitions[index] = next
    }
    return transitions[index]
  }

  private func makeTransition(from state: State, reading byte: UInt8) -> State {
    for item in sets[states[Int(state)]] where item.node != StackSets.end {
      for edge in grammar.edges(of: item.node)
      where edge.kind == .bytes && edge.low <= byte && byte <= edge.high {
        open.append(StackSets.Item(node: edge.target, below: item.below))
      }
    }
    return finishTransition()
  }

  /// Follows what reads nothing from the open items, and makes a state of where bytes are read.
  private func finishTransition() -> State {
    while let item = open.popLast() {
      guard sets.workLeft > 0 else { break }
      sets.spend(1)
      if item.node == StackSets.end {
        isFinished = true
        continue
      }
      let node = Int(item.node)
      let merged = sets.union(seen[node], item.below)
      guard merged != seen[node] else { continue }
      if seen[node] == StackSets.none { touched.append(item.node) }
      seen[node] = merged
      follow(item.node, merged)
    }
    let list = touched.filter { grammar.nodes[Int($0)].readsBytes }.sorted()
    var items = list.map { StackSets.Item(node: $0, below: seen[Int($0)]) }
    if isFinished { items.append(StackSets.Item(node: StackSets.end, below: StackSets.none)) }
    for node in touched { seen[Int(node)] = StackSets.none }
    touched.removeAll(keepingCapacity: true)
    open.removeAll(keepingCapacity: true)
    isFinished = false
    guard sets.workLeft > 0, !items.isEmpty else { return Self.dead }
    return state(of: sets.insert(items))
  }

  private func follow(_ node: UInt32, _ below: UInt32) {
    if grammar.nodes[Int(node)].isEnd {
      sets.spend(sets[below].count)
      open.append(contentsOf: sets[below])
    }
    for edge in grammar.edges(of: node) {
      switch edge.kind {
      case .bytes: continue
      case .nothing: open.append(StackSets.Item(node: edge.target, below: below))
      case .call:
        // What only returns leaves nothing on the stack.
        let isTail = grammar.nodes[Int(edge.target)].isTail
        let rest =
          isTail
          ? below : sets.insert(CollectionOfOne(StackSets.Item(node: edge.target, below: below)))
        open.append(StackSets.Item(node: edge.callee, below: rest))
      }
      sets.spend(1)
    }
  }

  private func state(of set: UInt32) -> State {
    if let state = stateOfSet[set] { return state }
    let state = State(states.count)
    states.append(set)
    stateOfSet[set] = state
    sets.spend(classCount)
    transitions.append(contentsOf: repeatElement(Self.unknown, count: classCount))
    sets.spend(classCount / 2)
    return state
  }
}
