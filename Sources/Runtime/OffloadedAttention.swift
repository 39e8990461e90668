import KVCache
import Kernels
import TensorBasics

/// What of decoded tokens' attention is computed elsewhere; all of it is the host's after that has failed.
///
/// The host keeps all keys and values too: prompts are read with them, and after a failure it can go on. Where it
/// attends over the newest itself, it hands over complete tiles, as its window leaves them: their tokens have passed
/// all layers by then, and will not be taken back.
final class OffloadedAttention {
  /// Called with the reason when nothing more is computed elsewhere; returns whether the host goes on by itself.
  var onFailure: ((any Error) -> Bool)?
  /// Whether it is still computed elsewhere.
  private(set) var isInUse = true
  private let attention: any DecodeAttention
  private let shape: KeyValueShape
  /// Of each layer, where what has been handed over by tiles ends.
  private var handedEnds: [Int]
  /// Keys, then values, on their way [transferCount, keyValueHeadCount, headDim] each; none without a host window.
  private let rows: AlignedBuffer

  /// Positions that are handed over at once.
  private static let transferCount = 64

  /// - Throws: ``RuntimeError/allocation(_:)``.
  init(_ attention: any DecodeAttention, _ shape: KeyValueShape) throws(RuntimeError) {
    self.attention = attention
    self.shape = shape
    handedEnds = Array(repeating: 0, count: shape.layerCount)
    do { rows = try AlignedBuffer(byteCount: Self.byteCount(attention, shape)) } catch {
      throw .allocation(error)
    }
  }

  static func byteCount(_ attention: any DecodeAttention, _ shape: KeyValueShape) -> Int {
    attention.hostWindow == 0
      ? 0
      : AlignedBuffer.roundedUp(8 * transferCount * shape.keyValueHeadCount * shape.headDim)
  }

  /// Takes the keys and values of a span's rows, or what the host's window has left before them.
  ///
  /// - Parameters: the rows' as those of ``DecodeAttention/append(layer:position:tokenCount:keys:values:)``.
  /// - Throws: ``RuntimeError/decodeAttention(_:)`` if the host is not to go on by itself.
  func take(
    layer: Int, _ span: Batch.Span, window: Int?, keys: UnsafePointer<Float>,
    values: UnsafePointer<Float>
  ) throws(RuntimeError) {
    guard isInUse else { return }
    do {
      guard attention.hostWindow == 0 else {
        return try handOver(layer: layer, span, window: window)
      }
      try attention.append(
        layer: layer, position: span.position, tokenCount: span.rows.count, keys: keys,
        values: values)
    } catch { try fail(error) }
  }

  /// Begins the attention of a token.
  ///
  /// - Returns: the position before which `partials` hold all tiles; 0 if they hold none.
  /// - Throws: as ``take(layer:_:window:keys:values:)``.
  func fold(
    layer: Int, position: Int, window: Int?, queries: UnsafePointer<Float>,
    into partials: TokenPartials
  ) throws(RuntimeError) -> Int {
    guard isInUse else { return 0 }
    let first = AttentionStep.visible(position, window).first
    let end = attention.hostWindow == 0 ? position + 1 : hostStart(position)
    guard Int(first) < end else { return 0 }
    do {
      try attention.fold(
        layer: layer, visible: VisibleRange(first: first, last: Int32(end - 1)),
        queries: queries, into: partials, continues: false)
      return end
    } catch {
      try fail(error)
      return 0
    }
  }

  func reset() {
    for layer in handedEnds.indices { handedEnds[layer] = 0 }
    if isInUse { attention.reset() }
  }

  /// The first position of the tiles that the host attends over for a token at `position`.
  private func hostStart(_ position: Int) -> Int {
    let size = AttentionTile.positionCount
    return max(0, position + 1 - attention.hostWindow) / size * size
  }

  /// Hands over what the host's window has left of a layer.
  private func handOver(layer: Int, _ span: Batch.Span, window: Int?) throws {
    let seen = Int(AttentionStep.visible(span.position, window).first)
    let end = hostStart(span.position)
    // Blocks that a sliding window has passed are no longer there.
    var next = max(
      handedEnds[layer], seen / KeyValueBlock.positionCount * KeyValueBlock.positionCount)
    let keys = rows.address.assumingMemoryBound(to: Float.self)
    let values = keys + Self.transferCount * shape.keyValueHeadCount * shape.headDim
    while next < end {
      copy(layer: layer, from: next, of: span.cache, keys: keys, values: values)
      try attention.append(
        layer: layer, position: next, tokenCount: Self.transferCount, keys: keys, values: values)
      next += Self.transferCount
      handedEnds[layer] = next
    }
  }

  /// Copies a layer's keys and values of as many positions as are handed over at once, of one block.
  private func copy(
    layer: Int, from position: Int, of cache: KeyValueStore, keys: UnsafeMutablePointer<Float>,
    values: UnsafeMutablePointer<Float>
  ) {
    let (pageGroup, first) = position.quotientAndRemainder(dividingBy: KeyValueBlock.positionCount)
    for head in 0..<shape.keyValueHeadCount {
      guard let block = cache.block(layer: layer, head: head, pageGroup: pageGroup) else {
        preconditionFailure("what a token sees is in memory")
      }
      for index in 0..<Self.transferCount {
        let place = (index * shape.keyValueHeadCount + head) * shape.headDim
        KeyValueBlock.load(
          position: first + index, headDim: shape.headDim, from: block, key: keys + place,
          value: values + place)
      }
    }
  }

  private func fail(_ error: any Error) throws(RuntimeError) {
    isInUse = false
    guard let onFailure, onFailure(error) else { throw .decodeAttention(error) }
  }
}
