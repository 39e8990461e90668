import KVCache

/// The tokens that a session's context holds, so that the next prompt reads only what is new.
///
/// ```
/// try context.prepare(session, for: prompt)
/// let result = try generator.generate(options) { … }
/// context.note(session, prompt + result.tokens)
/// ```
///
/// The answers are those of a context that read each prompt from its beginning, to the bit.
public struct ContextTokens: Sendable {
  public private(set) var tokens: [Int32] = []

  public init() {}

  /// Makes the context a beginning of `prompt` that leaves at least its last token to be read.
  ///
  /// Of what it holds the common beginning stays, and the rest is forgotten.
  ///
  /// What a policy for keys and values let attend over less than everything is not kept either, because a prompt
  /// attends over all of itself.
  ///
  /// - Throws: as ``Session/truncate(to:)``.
  public mutating func prepare(
    _ session: Session, for prompt: [Int32]
  ) throws(RuntimeError) {
    let common = zip(tokens, prompt.dropLast()).prefix { $0 == $1 }.count
    let end = try session.truncate(to: min(common, session.keyValues.exactPositionCount))
    tokens = Array(tokens.prefix(end))
  }

  /// Notes what was read: of `read`, a prompt and its answer, as much as the context holds. Where a step failed, that may
  /// be more than is known; the next ``prepare(_:for:)`` forgets the rest.
  public mutating func note(_ session: Session, _ read: [Int32]) {
    tokens = Array(read.prefix(session.position))
  }
}
