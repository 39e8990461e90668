/// Looks at every dense FFN as it is computed; changes nothing.
///
/// It is called on the thread that uses the session, with the decoder's own buffers, which are valid
/// only during the call.
public protocol FeedForwardObserver: AnyObject {
  /// The products with an FFN's input are there, the activation is not applied yet.
  ///
  /// - Parameters:
  ///   - input: the FFN's normalised input, [place.tokenCount, hiddenSize].
  ///   - gate: the gate's product with it, [place.tokenCount, feedForwardLength].
  func feedForward(
    _ place: FeedForwardPlace, input: UnsafeBufferPointer<Float>, gate: UnsafeBufferPointer<Float>)

  /// An FFN's output was added to the residual stream.
  ///
  /// - Parameters:
  ///   - output: what was added, [place.tokenCount, hiddenSize].
  ///   - residual: the sum, [place.tokenCount, hiddenSize].
  func feedForward(
    _ place: FeedForwardPlace, output: UnsafeBufferPointer<Float>,
    residual: UnsafeBufferPointer<Float>)
}

/// Which FFN runs for which tokens.
public struct FeedForwardPlace: Sendable {
  public let layer: Int
  /// Position of the first token in the context.
  public let position: Int
  public let tokenCount: Int
}
