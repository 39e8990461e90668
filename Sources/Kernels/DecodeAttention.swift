/// Attention of single tokens that is computed elsewhere than over the host's keys and values, such as in
/// a computational storage drive. Prompts are read by the host, which hands over their keys and values.
///
/// One thread uses it.
public protocol DecodeAttention: AnyObject {
  /// Takes the keys and values of `tokenCount` positions from `position` on, which follow those before.
  ///
  /// - Parameters:
  ///   - keys: [tokenCount, keyValueHeadCount, headDim], after RoPE.
  ///   - values: of the same shape.
  func append(
    layer: Int, position: Int, tokenCount: Int, keys: UnsafePointer<Float>,
    values: UnsafePointer<Float>) throws

  /// Replaces `queries` [queryHeadCount, headDim] (scaled, rotated) by attention's output over the
  /// positions that a token sees.
  func attend(
    layer: Int, visible: VisibleRange, queries: UnsafeMutablePointer<Float>) throws

  /// Forgets every position.
  func reset()
}
