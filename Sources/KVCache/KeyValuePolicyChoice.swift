/// Which policy decides what tokens after a prompt attend over, by name.
public enum KeyValuePolicyChoice: Sendable, Equatable {
  /// Everything.
  case full
  /// The first `sinks` and the last `recent` positions (StreamingLLM, arXiv:2309.17453 §3.2), in whole
  /// blocks; a sliding window where `sinks` is 0.
  case recent(sinks: Int, recent: Int)
  /// The share of the blocks whose keys may score highest (Quest, arXiv:2406.10774 §3.2).
  case top(share: Double)
  /// Of the prompt, as many positions as the tokens at its end attended to most (SnapKV,
  /// arXiv:2404.14469 §4), in whole blocks; everything after the prompt.
  case snapKV(positions: Int)

  /// Reads `full`, `window=N`, `sinks=S+N`, `top=1/8` or `top=0.125`, or `snapkv=N`.
  public init?(_ text: String) {
    if text == "full" {
      self = .full
      return
    }
    guard let equals = text.firstIndex(of: "=") else { return nil }
    let value = text[text.index(after: equals)...]
    switch text[..<equals] {
    case "window":
      guard let recent = Self.positions(value) else { return nil }
      self = .recent(sinks: 0, recent: recent)
    case "sinks":
      let parts = value.split(separator: "+", omittingEmptySubsequences: false)
      guard parts.count == 2, let sinks = Self.positions(parts[0]),
        let recent = Self.positions(parts[1])
      else { return nil }
      self = .recent(sinks: sinks, recent: recent)
    case "top":
      guard let share = Self.share(value) else { return nil }
      self = .top(share: share)
    case "snapkv":
      guard let positions = Self.positions(value) else { return nil }
      self = .snapKV(positions: positions)
    default: return nil
    }
  }

  /// What ``init(_:)`` reads.
  public static let forms = "full, window=N, sinks=S+N, top=1/8 or snapkv=N"

  /// Memory of the policy for a context of that shape.
  public func byteCount(_ shape: KeyValueShape) -> Int {
    switch self {
    case .full: 0
    case .recent: BlockReads.byteCount(shape)
    case .snapKV: BlockReads.byteCount(shape) + SnapKVPolicy.byteCount(shape)
    case .top: BlockReads.byteCount(shape) + TopBlocksPolicy.byteCount(shape)
    }
  }

  /// Tokens at the end of a prompt that the policy observes.
  public var observedTokenCount: Int {
    if case .snapKV = self { SnapKVPolicy.windowLength } else { 0 }
  }

  /// Whether tokens that may be rejected can attend over what it plans, which must not depend on their queries.
  public var takesDrafts: Bool {
    if case .top = self { false } else { true }
  }

  /// The policy; nil for full attention, which needs none.
  ///
  /// - Parameter queryHeadCount: a multiple of the shape's KV heads.
  package func makePolicy(
    _ shape: KeyValueShape, queryHeadCount: Int
  ) throws(KeyValueError) -> (any KeyValuePolicy)? {
    switch self {
    case .full: nil
    case .recent(let sinks, let recent):
      RecentPolicy(
        sinkPageGroupCount: KeyValueShape.pageGroupCount(positionCount: sinks),
        recentPageGroupCount: KeyValueShape.pageGroupCount(positionCount: recent))
    case .top(let share): try TopBlocksPolicy(shape, queryHeadCount: queryHeadCount, share: share)
    case .snapKV(let positions):
      SnapKVPolicy(shape, pageGroupCount: KeyValueShape.pageGroupCount(positionCount: positions))
    }
  }

  private static func positions(_ text: Substring) -> Int? {
    Int(text).flatMap { (0...1 << 40).contains($0) ? $0 : nil }
  }

  /// A fraction above 0 and up to 1, as a quotient or a decimal number.
  private static func share(_ text: Substring) -> Double? {
    let parts = text.split(separator: "/", omittingEmptySubsequences: false).map { Double($0) }
    let share: Double? =
      switch parts.count {
      case 1: parts[0]
      case 2: parts[0].flatMap { above in parts[1].map { above / $0 } }
      default: nil
      }
    return share.flatMap { $0 > 0 && $0 <= 1 ? $0 : nil }
  }
}

extension KeyValuePolicyChoice: CustomStringConvertible {
  public var description: String {
    switch self {
    case .full: "full"
    case .recent(0, let recent): "window=\(recent)"
    case .recent(let sinks, let recent): "sinks=\(sinks)+\(recent)"
    case .top(let share): "top=\(share)"
    case .snapKV(let positions): "snapkv=\(positions)"
    }
  }
}
