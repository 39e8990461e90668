import ModelFormat
public import TensorBasics

/// What a load posts.
public struct LoadRequest: Sendable, Equatable {
  /// `/v1/completions` or `/v1/chat/completions`.
  public var path: String
  public var body: [UInt8]

  /// What goes into every request.
  public struct Common: Sendable {
    public var model: String
    /// Tokens of an answer, where the request itself does not say.
    public var answerTokenCount: Int
    public var seed: UInt64
    /// Whether answers have all their tokens, whatever the model thinks.
    public var ignoresEnd: Bool

    public init(model: String, answerTokenCount: Int, seed: UInt64, ignoresEnd: Bool) {
      self.model = model
      self.answerTokenCount = answerTokenCount
      self.seed = seed
      self.ignoresEnd = ignoresEnd
    }

    /// Writes what `given` does not have.
    fileprivate func write(to json: inout JSONWriter, beside given: Set<String>) {
      json.text("model", model)
      json.flag("stream", true)
      json.object("stream_options") { $0.flag("include_usage", true) }
      if given.isDisjoint(with: ["max_tokens", "max_completion_tokens"]) {
        json.number("max_tokens", answerTokenCount)
      }
      if !given.contains("seed") { json.number("seed", seed) }
      if ignoresEnd, !given.contains("ignore_eos") { json.flag("ignore_eos", true) }
    }
  }

  /// A request with token ids as its prompt.
  public init(promptTokens: [Int32], _ common: Common) {
    path = "/v1/completions"
    body = JSONWriter.document { json in
      common.write(to: &json, beside: [])
      json.array("prompt", of: promptTokens) { $0.number(nil, $1) }
    }
  }

  /// A line of a file: an object with `prompt` or `messages`, and whatever else the server takes.
  ///
  /// - Returns: nil if it is none, or says itself what the load says.
  public init?(line: [UInt8], _ common: Common) {
    let parsed = line.withUnsafeBytes { try? JSONParser.parse($0, path: "line") }
    guard let members = parsed?.members else { return nil }
    let names = Set(members.map(\.key))
    guard names.contains("prompt") != names.contains("messages"),
      names.isDisjoint(with: ["model", "stream", "stream_options"]),
      let start = line.firstIndex(of: UInt8(ascii: "{"))
    else { return nil }
    path = names.contains("messages") ? "/v1/chat/completions" : "/v1/completions"
    var own = JSONWriter.document { common.write(to: &$0, beside: names) }
    // The line's members follow as they are.
    own.removeLast(own.count - (own.lastIndex(of: UInt8(ascii: "}")) ?? own.count))
    body = own + [UInt8(ascii: ",")] + line[(start + 1)...]
  }
}

/// Lengths that are drawn.
public struct LengthDistribution: Sendable, Equatable {
  private enum Form: Equatable {
    case between(ClosedRange<Int>)
    /// Exponentially distributed, at least 1.
    case mean(Int)
  }

  private let form: Form

  /// How they are written.
  public static let forms = "N, LEAST-MOST or mean:N"

  /// `128`, `64-256` (each as probable as another) or `mean:128` (many short ones, few long); nil if it is none of these.
  public init?(_ text: String) {
    if text.hasPrefix("mean:") {
      guard let mean = Int(text.dropFirst(5)), Self.lengths.contains(mean) else { return nil }
      form = .mean(mean)
      return
    }
    let ends = text.split(separator: "-", omittingEmptySubsequences: false).map { Int($0) }
    guard let first = ends.first.flatMap({ $0 }), let last = ends.last.flatMap({ $0 }),
      ends.count <= 2, first <= last, Self.lengths.contains(first), Self.lengths.contains(last)
    else { return nil }
    form = .between(first...last)
  }

  private static let lengths = 1...(1 << 24)

  public func draw(using generator: inout SeededGenerator) -> Int {
    switch form {
    case .between(let range): Int.random(in: range, using: &generator)
    case .mean(let mean):
      min(
        Self.lengths.upperBound,
        max(1, Int((-Double(mean) * CanonicalMath.log(1 - generator.nextUnit())).rounded())))
    }
  }
}

/// Prompts of drawn lengths, made of drawn tokens.
public struct DrawnPrompts: Sendable {
  public var promptLength: LengthDistribution
  public var answerLength: LengthDistribution
  /// Tokens that all prompts begin with.
  public var sharedTokenCount: Int
  public var seed: UInt64
  public var ignoresEnd = true

  public init(
    promptLength: LengthDistribution, answerLength: LengthDistribution, sharedTokenCount: Int = 0,
    seed: UInt64
  ) {
    self.promptLength = promptLength
    self.answerLength = answerLength
    self.sharedTokenCount = sharedTokenCount
    self.seed = seed
  }

  /// Ids that vocabularies have, and that are no control tokens.
  private static let ids: Range<Int32> = 100..<200

  /// The first `count` requests of the seed.
  public func requests(_ count: Int, model: String) -> [LoadRequest] {
    var generator = SeededGenerator(seed: seed)
    func tokens(_ count: Int) -> [Int32] {
      (0..<count).map { _ in Int32.random(in: Self.ids, using: &generator) }
    }
    let shared = tokens(sharedTokenCount)
    return (0..<count).map { number in
      let own = tokens(promptLength.draw(using: &generator))
      return LoadRequest(
        promptTokens: shared + own,
        LoadRequest.Common(
          model: model, answerTokenCount: answerLength.draw(using: &generator),
          seed: UInt64(number), ignoresEnd: ignoresEnd))
    }
  }
}
