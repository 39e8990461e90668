package import ModelFormat
import TensorBasics

/// What an answer must be: a context-free grammar over bytes, compiled once and shared by any number of sequences.
///
/// ```swift
/// let grammar = try CompiledGrammar(gbnf: #"root ::= "yes" | "no""#)
/// ```
///
/// Grammars are equal where their automata are, so that the same text compiled twice shares what is computed for it.
public final class CompiledGrammar: Sendable {
  /// What leads from a node to another.
  struct Edge: Hashable {
    enum Kind: UInt8 {
      case bytes
      case nothing
      case call
    }

    var kind: Kind
    /// The bytes that it reads.
    var low: UInt8 = 0
    var high: UInt8 = 0
    var target: UInt32
    /// The node where the rule that is called begins.
    var callee: UInt32 = 0
  }

  struct Node: Hashable {
    /// Where its edges begin; they end where the next node's begin.
    var firstEdge: UInt32
    /// Whether a rule ends here.
    var isEnd = false
    /// Whether nothing but the end of a rule follows.
    var isTail = false
    var readsBytes = false
  }

  /// [node count + 1]
  let nodes: [Node]
  let edges: [Edge]
  let root: UInt32
  /// Bytes of one class lead everywhere to the same place [256].
  let classes: [UInt8]
  /// A byte of each class.
  let representatives: [UInt8]
  /// Equal for equal grammars, in every process.
  public let checksum: UInt64

  /// Memory that it takes.
  public var byteCount: Int {
    MemoryLayout<Node>.stride * nodes.count + MemoryLayout<Edge>.stride * edges.count + 512
  }

  /// Memory that compiling a grammar takes for a moment, beside its text: at most, whatever it says.
  package static let compilationByteCount = 24 << 20

  /// Does `work`, in which grammars that would take more memory to compile are refused.
  ///
  /// - Parameter byteCount: nothing more is allowed by more than ``compilationByteCount``.
  package static func compiling<Result>(
    within byteCount: Int, _ work: () throws -> Result
  ) rethrows -> Result {
    let share = min(1, Double(byteCount) / Double(compilationByteCount))
    return try GrammarLimits.$share.withValue(share, operation: work)
  }

  /// - Parameter place: where a rule is written.
  init(
    _ builder: GrammarBuilder, root: Int,
    place: (_ rule: Int) -> GrammarError.Place = { _ in .whole }
  ) throws(GrammarError) {
    let analysis = GrammarAnalysis(builder)
    if let rule = analysis.leftRecursiveRule {
      let name = builder.rules[rule].name
      throw GrammarError(
        (name.isEmpty ? "a repetition" : "the rule '\(name)'")
          + " begins with itself (left recursion), which is not supported: write it with a repetition",
        at: place(rule))
    }
    guard analysis.isProductive[builder.rules[root].start] else {
      throw GrammarError("no text matches it", at: place(root))
    }
    let layout = GrammarLayout(builder, analysis, root: root)
    (nodes, edges, self.root) = (layout.nodes, layout.edges, layout.root)
    (classes, representatives) = Self.classes(of: layout.edges)
    checksum = Self.checksum(of: layout)
  }

  private static func checksum(of layout: GrammarLayout) -> UInt64 {
    var words = [layout.root.littleEndian]
    words.reserveCapacity(1 + layout.nodes.count + 3 * layout.edges.count)
    for node in layout.nodes {
      let flags: UInt32 = node.isEnd ? 1 << 31 : 0
      words.append((node.firstEdge | flags).littleEndian)
    }
    for edge in layout.edges {
      let (kind, low, high) = (edge.kind.rawValue, edge.low, edge.high)
      words.append((UInt32(kind) << 16 | UInt32(low) << 8 | UInt32(high)).littleEndian)
      words.append(edge.target.littleEndian)
      words.append(edge.callee.littleEndian)
    }
    return words.withUnsafeBytes { Checksum.of($0) }
  }

  private static func classes(of edges: [Edge]) -> ([UInt8], [UInt8]) {
    // Bytes are told apart by the set of ranges that they lie in, wherever it is the same.
    var starts = [Bool](repeating: false, count: 257)
    starts[0] = true
    for edge in edges where edge.kind == .bytes {
      starts[Int(edge.low)] = true
      starts[Int(edge.high) + 1] = true
    }
    var classes: [UInt8] = []
    var representatives: [UInt8] = []
    for byte in 0..<256 {
      if starts[byte] { representatives.append(UInt8(byte)) }
      classes.append(UInt8(representatives.count - 1))
    }
    return (classes, representatives)
  }

  /// The edges that leave a node.
  func edges(of node: UInt32) -> ArraySlice<Edge> {
    edges[Int(nodes[Int(node)].firstEdge)..<Int(nodes[Int(node) + 1].firstEdge)]
  }
}

extension CompiledGrammar: Hashable {
  public static func == (left: CompiledGrammar, right: CompiledGrammar) -> Bool {
    left === right
      || left.checksum == right.checksum && left.root == right.root
        && left.nodes == right.nodes && left.edges == right.edges
  }

  public func hash(into hasher: inout Hasher) { hasher.combine(checksum) }
}

extension CompiledGrammar {
  /// Compiles a grammar in GBNF, llama.cpp's notation.
  ///
  /// - Throws: ``GrammarError`` with the offset of what is wrong; left recursion is not supported.
  public convenience init(gbnf text: String) throws(GrammarError) {
    let (builder, root, offsets) = try GrammarParser.parse(text)
    try self.init(builder, root: root) { rule in
      offsets.indices.contains(rule) ? .offset(offsets[rule]) : .whole
    }
  }

  /// Answers that a regular expression matches from their beginning to their end.
  ///
  /// - Throws: ``GrammarError`` with the offset of what is wrong or not supported.
  public convenience init(pattern: String) throws(GrammarError) {
    try self.init(try PatternParser.whole(pattern))
  }

  /// Answers that are one of these texts.
  public convenience init(choices: [String]) throws(GrammarError) {
    guard choices.reduce(0, { $0 + $1.utf8.count }) <= GrammarLimits.sourceByteCount else {
      throw GrammarError("the choices are longer than \(GrammarLimits.sourceByteCount) bytes")
    }
    try self.init(.automaton(ByteAutomaton(texts: choices.map { Array($0.utf8) })))
  }

  /// Answers that are any JSON object.
  public static func anyObject() throws(GrammarError) -> CompiledGrammar {
    try CompiledGrammar(forms: [Form(schema: .object)])
  }

  /// Answers that a JSON schema allows, read from its text.
  ///
  /// - Throws: ``GrammarError`` with the JSON pointer of what is wrong or not supported.
  public convenience init(jsonSchema text: String) throws(GrammarError) {
    guard text.utf8.count <= GrammarLimits.sourceByteCount else {
      throw GrammarError("the schema is longer than \(GrammarLimits.sourceByteCount) bytes")
    }
    let schema: JSONValue
    do {
      schema = try Array(text.utf8).withUnsafeBytes { try JSONParser.parse($0, path: "the schema") }
    } catch { throw GrammarError("\(error)") }
    try self.init(jsonSchema: schema)
  }

  /// Answers that a JSON schema allows.
  package convenience init(jsonSchema schema: JSONValue) throws(GrammarError) {
    try self.init(forms: [Form(schema: .schema(schema))])
  }

  /// A value in JSON, between texts: such as the call of a function.
  package struct Form {
    package enum Schema {
      case object
      case schema(JSONValue)
    }

    package var prefix = ""
    package var schema: Schema
    package var suffix = ""

    package init(prefix: String = "", schema: Schema, suffix: String = "") {
      self.prefix = prefix
      self.schema = schema
      self.suffix = suffix
    }
  }

  /// Answers that have one of these forms, or several of them with `separator` between.
  ///
  /// - Parameter separator: nil = one alone.
  package convenience init(forms: [Form], separator: String? = nil) throws(GrammarError) {
    try self.init(forms) { one in
      .sequence([one, separator.map { Expression.any(.sequence([.literal($0), one])) } ?? .empty])
    }
  }

  /// Any text, in which one of these forms stands wherever `mark` does, with which they begin.
  ///
  /// - Parameter areMany: whether there may be more than one of them; text follows none but then.
  package convenience init(
    text mark: String, _ forms: [Form], areMany: Bool
  ) throws(GrammarError) {
    let text = Expression.automaton(
      try ByteAutomaton.anyText.intersection(ByteAutomaton(without: Array(mark.utf8))))
    try self.init(forms) { one in
      .sequence([text, areMany ? .any(.sequence([one, text])) : .optional(one)])
    }
  }

  /// Text that does not begin with `{`, white space aside; or one of these forms, or several with `separator` between.
  package convenience init(
    textOrForms forms: [Form], separator: String?
  ) throws(GrammarError) {
    let space = ScalarSet(" \t\r\n".unicodeScalars)
    let start = space.union(ScalarSet("{".unicodeScalars)).complement
    let text = Expression.sequence([
      .any(.scalar(space)), .optional(.sequence([.scalar(start), .any(.scalar(.all))])),
    ])
    try self.init(forms) { one in
      let more = separator.map { Expression.any(.sequence([.literal($0), one])) } ?? .empty
      return .choice([text, .sequence([one, more])])
    }
  }

  /// - Parameter whole: makes an answer of one form.
  private convenience init(
    _ forms: [Form], _ whole: (_ one: Expression) -> Expression
  ) throws(GrammarError) {
    var builder = GrammarBuilder()
    let root = try builder.declare("root")
    let rules = try JSONRules(&builder)
    var choices: [Expression] = []
    for form in forms {
      let value: Expression =
        switch form.schema {
        case .object: rules.object
        case .schema(let schema): try SchemaCompiler.add(schema, to: &builder, rules)
        }
      choices.append(.sequence([.literal(form.prefix), value, .literal(form.suffix)]))
    }
    try builder.define(root, as: whole(try builder.rule("", .choice(choices))))
    try self.init(builder, root: root)
  }

  private convenience init(_ expression: Expression) throws(GrammarError) {
    var builder = GrammarBuilder()
    let root = try builder.declare("root")
    try builder.define(root, as: expression)
    try self.init(builder, root: root)
  }
}
