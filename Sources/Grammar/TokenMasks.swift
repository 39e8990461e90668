import TensorBasics

/// Which tokens may come next in answers under grammars: the masks of all sequences of an engine.
///
/// A token may come where all its bytes can be read one after the other. That follows from grammar, answer and
/// vocabulary alone: what was computed is kept as long as there is room for it, and what is forgotten is
/// computed again, with the same result. One thread uses it.
package final class TokenMasks {
  private let trie: TokenTrie
  /// Room for what is kept of all grammars.
  private let byteLimit: Int
  /// Work for one mask.
  private let work: Int
  /// What is known of each grammar, the one used last at the end.
  private var tables: [MaskTable] = []
  private var tableCount = 0

  /// Memory of the masks of a vocabulary, beside its trie.
  package static let usualByteCount = 8 << 20
  /// What finding one mask may add to that for a moment, with a grammar that is made to cost.
  package static let momentByteCount = 16 << 20

  package init(_ trie: TokenTrie, byteLimit: Int = TokenMasks.usualByteCount) {
    self.trie = trie
    self.byteLimit = byteLimit
    work = GrammarAutomaton.usualWork
  }

  /// Masks that take no more than that, beside the trie: a grammar that needs more for one is refused.
  package init(_ trie: TokenTrie, within byteCount: Int) {
    self.trie = trie
    let usual = Self.usualByteCount + Self.momentByteCount
    let share = min(1, Double(byteCount) / Double(usual))
    byteLimit = Int(share * Double(Self.usualByteCount))
    work = Int(share * Double(GrammarAutomaton.usualWork))
  }

  /// 64-bit words of a mask.
  package var wordCount: Int { (trie.tokenCount + 63) / 64 }
  package var byteCount: Int { tables.reduce(0) { $0 + $1.byteCount } }

  /// What may follow an answer.
  package enum Next: Equatable, Sendable {
    /// Tokens of the mask, and the end where it may end.
    case tokens(canEnd: Bool)
    /// Nothing but the end.
    case end
    /// Nothing: no token of the vocabulary can be read here.
    case nothing
    /// The grammar needs more work than is allowed.
    case exhausted
  }

  /// Moves `place` to the end of the answer.
  ///
  /// - Parameter answer: its tokens, the first of which are those that `place` was moved over before.
  /// - Returns: whether nothing can follow.
  package func advance(_ place: inout GrammarPlace, over answer: ArraySlice<Int32>) -> Bool {
    let table = table(of: place.grammar)
    table.advance(&place, over: answer, trie)
    return table.automaton.mustEnd(place.state)
  }

  /// Writes which tokens may come after an answer: bit i of the words is token i's.
  ///
  /// - Parameter words: [``wordCount``]; mean nothing where the result is not `tokens`.
  package func fill(
    _ words: inout [UInt64], at place: inout GrammarPlace,
    after answer: ArraySlice<Int32>
  ) -> Next {
    let table = table(of: place.grammar)
    table.advance(&place, over: answer, trie)
    defer { makeRoom() }
    guard let hasTokens = table.fill(&words, at: place.state, trie) else { return .exhausted }
    let canEnd = table.automaton.canEnd(place.state)
    if hasTokens { return .tokens(canEnd: canEnd) }
    return canEnd ? .end : .nothing
  }

  private func table(of grammar: CompiledGrammar) -> MaskTable {
    if let last = tables.last, last.automaton.grammar === grammar { return last }
    let found = tables.firstIndex { $0.automaton.grammar == grammar }
    let table = found.map { tables.remove(at: $0) } ?? makeTable(of: grammar)
    tables.append(table)
    return table
  }

  private func makeTable(of grammar: CompiledGrammar) -> MaskTable {
    tableCount += 1
    return MaskTable(grammar, number: tableCount, wordCount: wordCount, work: work)
  }

  /// Forgets what was not used for longest.
  private func makeRoom() {
    while !tables.isEmpty, byteCount > byteLimit { tables.removeFirst() }
  }
}

/// How far an answer has come in its grammar.
package struct GrammarPlace: Sendable {
  package let grammar: CompiledGrammar
  /// A state of the table of that number.
  fileprivate(set) var state = GrammarAutomaton.dead
  fileprivate var table = 0
  /// Tokens of the answer that it was moved over.
  fileprivate var tokenCount = 0

  package init(_ grammar: CompiledGrammar) { self.grammar = grammar }
}

/// The automaton of one grammar and the masks of its states.
private final class MaskTable {
  let automaton: GrammarAutomaton
  /// Tells tables apart, whose states have the same numbers.
  private let number: Int
  private let wordCount: Int
  /// The mask of each state; -1 = it was not computed, -2 = it has no tokens.
  private var masks: [Int] = []
  /// [mask count, wordCount]
  private var words: [UInt64] = []
  /// States on the way to a node of the trie, by depth; the first is where the walk began.
  private var path = [GrammarAutomaton.State](
    repeating: GrammarAutomaton.dead, count: TokenTrie.longestText + 1)

  init(_ grammar: CompiledGrammar, number: Int, wordCount: Int, work: Int) {
    automaton = GrammarAutomaton(grammar, work: work)
    self.number = number
    self.wordCount = wordCount
  }

  var byteCount: Int {
    automaton.byteCount + 8 * (masks.capacity + words.capacity) + automaton.grammar.byteCount
  }

  func advance(_ place: inout GrammarPlace, over answer: ArraySlice<Int32>, _ trie: TokenTrie) {
    if place.table != number {
      automaton.allowWork()
      (place.table, place.state, place.tokenCount) = (number, automaton.start(), 0)
    }
    for token in answer.dropFirst(place.tokenCount) {
      automaton.allowWork()
      for byte in trie.texts[Int(token)] {
        place.state = automaton.next(place.state, byte)
      }
    }
    place.tokenCount = answer.count
  }

  /// - Returns: whether there are tokens; nil where that is too much work.
  func fill(
    _ output: inout [UInt64], at state: GrammarAutomaton.State, _ trie: TokenTrie
  ) -> Bool? {
    guard state >= 0 else { return false }
    while masks.count <= Int(state) { masks.append(-1) }
    if masks[Int(state)] == -1 {
      automaton.allowWork()
      let first = words.count
      words.append(contentsOf: repeatElement(0, count: wordCount))
      walk(from: state, trie, wordsFrom: first)
      if automaton.isExhausted {
        words.removeLast(wordCount)
        return nil
      }
      if words[first...].allSatisfy({ $0 == 0 }) {
        words.removeLast(wordCount)
        masks[Int(state)] = -2
      } else {
        masks[Int(state)] = first / wordCount
      }
    }
    guard masks[Int(state)] >= 0 else { return false }
    let first = masks[Int(state)] * wordCount
    for index in 0..<wordCount { output[index] = words[first + index] }
    return true
  }

  /// Sets the bits of all tokens whose bytes lead somewhere from `state`.
  private func walk(from state: GrammarAutomaton.State, _ trie: TokenTrie, wordsFrom first: Int) {
    path[0] = state
    var index = 0
    while index < trie.nodes.count, !automaton.isExhausted {
      index = walkKnown(from: index, trie, wordsFrom: first)
      guard index < trie.nodes.count else { break }
      // Makes the transition that was missing; the walk takes it then.
      let node = trie.nodes[index]
      _ = automaton.next(path[Int(node.depth) - 1], node.byte)
    }
  }

  /// Walks as long as all transitions are known.
  ///
  /// - Returns: the node whose transition is not, or the number of nodes.
  private func walkKnown(from start: Int, _ trie: TokenTrie, wordsFrom first: Int) -> Int {
    let classCount = automaton.classCount
    return trie.nodes.withUnsafeBufferPointer { nodes in
      automaton.transitions.withUnsafeBufferPointer { transitions in
        automaton.grammar.classes.withUnsafeBufferPointer { classes in
          path.withUnsafeMutableBufferPointer { path in
            words.withUnsafeMutableBufferPointer { words in
              var index = start
              while index < nodes.count {
                let node = nodes[index]
                let from = Int(path[Int(node.depth) - 1])
                let next = transitions[from * classCount + Int(classes[Int(node.byte)])]
                if next >= 0 {
                  path[Int(node.depth)] = next
                  if node.token >= 0 {
                    words[first + Int(node.token) >> 6] |= 1 << UInt64(node.token & 63)
                  }
                  index += 1
                } else if next == GrammarAutomaton.dead {
                  index = Int(node.end)
                } else {
                  return index
                }
              }
              return index
            }
          }
        }
      }
    }
  }
}
