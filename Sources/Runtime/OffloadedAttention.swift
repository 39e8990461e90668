import Kernels
import TensorBasics

/// Attention of decoded tokens that is computed elsewhere, and by the host after that has failed.
///
/// The host keeps keys and values too: prompts are read with them, and after a failure it can go on.
final class OffloadedAttention {
  /// Called with the reason when nothing more is computed elsewhere; returns whether the host goes on by itself.
  var onFailure: ((any Error) -> Bool)?
  /// Whether it is still computed elsewhere.
  private(set) var isInUse = true
  private let attention: any DecodeAttention
  /// The queries as they were: a failure may leave some of them replaced [queryHeadCount, headDim].
  private let queries: AlignedBuffer
  private let queryLength: Int

  /// - Throws: ``RuntimeError/allocation(_:)``.
  init(
    _ attention: any DecodeAttention, queryHeadCount: Int, headDim: Int
  ) throws(RuntimeError) {
    self.attention = attention
    queryLength = queryHeadCount * headDim
    do { queries = try AlignedBuffer(byteCount: 4 * queryLength) } catch {
      throw .allocation(error)
    }
  }

  /// As ``DecodeAttention/append(layer:position:tokenCount:keys:values:)``.
  ///
  /// - Throws: ``RuntimeError/decodeAttention(_:)`` if the host is not to go on by itself.
  func append(
    layer: Int, position: Int, tokenCount: Int, keys: UnsafePointer<Float>,
    values: UnsafePointer<Float>
  ) throws(RuntimeError) {
    guard isInUse else { return }
    do {
      try attention.append(
        layer: layer, position: position, tokenCount: tokenCount, keys: keys, values: values)
    } catch { try fail(error) }
  }

  /// As ``DecodeAttention/attend(layer:visible:queries:)``.
  ///
  /// - Returns: whether the output is there; the queries are as they were otherwise.
  /// - Throws: as ``append(layer:position:tokenCount:keys:values:)``.
  func attend(
    layer: Int, position: Int, window: Int?, queries: UnsafeMutablePointer<Float>
  ) throws(RuntimeError) -> Bool {
    guard isInUse else { return false }
    let saved = self.queries.address.assumingMemoryBound(to: Float.self)
    saved.update(from: queries, count: queryLength)
    do {
      try attention.attend(
        layer: layer, visible: AttentionStep.visible(position, window), queries: queries)
      return true
    } catch {
      try fail(error)
      queries.update(from: saved, count: queryLength)
      return false
    }
  }

  func reset() {
    if isInUse { attention.reset() }
  }

  private func fail(_ error: any Error) throws(RuntimeError) {
    isInUse = false
    guard let onFailure, onFailure(error) else { throw .decodeAttention(error) }
  }
}
