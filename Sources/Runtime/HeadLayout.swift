import ModelFormat

/// Where a token's heads of a layer lie: one after the other as products give them, or apart.
///
/// Attention and the cache take heads of a multiple of 16 elements, as long as the longest of keys and values. Shorter ones are
/// moved apart once they are rotated, with zeros between them, which add nothing to any sum. Keys and values have room for as many
/// heads as any layer has; those that a layer does not have are zeros, which nothing attends to.
struct HeadLayout {
  let shape: HeadShape
  let storedHeadDim: Int
  /// Heads that keys and values have room for.
  let storedHeadCount: Int
  /// Elements from one token's queries, or attention's output, to the next token's.
  let queryStride: Int
  /// Elements from one token's keys, or values, to the next token's; of all layers the same.
  let keyStride: Int

  init(_ shape: HeadShape, _ configuration: DecoderConfiguration) {
    self.shape = shape
    storedHeadDim = configuration.storedHeadDim
    queryStride = shape.queryHeadCount * storedHeadDim
    storedHeadCount = configuration.storedKeyValueHeadCount
    keyStride = storedHeadCount * storedHeadDim
  }

  /// Those of each attention, in the order of layers.
  static func all(_ configuration: DecoderConfiguration) -> [HeadLayout] {
    configuration.headShapes.map { HeadLayout($0, configuration) }
  }

  /// Moves a token's queries, which lie one after the other, apart.
  func spreadQueries(_ heads: UnsafeMutablePointer<Float>) {
    spread(heads, count: shape.queryHeadCount, length: shape.headDim)
  }

  /// Moves a token's keys and values apart, and clears the heads that the layer does not have.
  func spread(keys: UnsafeMutablePointer<Float>, values: UnsafeMutablePointer<Float>) {
    spread(keys, count: shape.keyValueHeadCount, length: shape.headDim)
    spread(values, count: shape.keyValueHeadCount, length: shape.valueLength)
    let used = shape.keyValueHeadCount * storedHeadDim
    guard used < keyStride else { return }
    (keys + used).update(repeating: 0, count: keyStride - used)
    (values + used).update(repeating: 0, count: keyStride - used)
  }

  private func spread(_ heads: UnsafeMutablePointer<Float>, count: Int, length: Int) {
    guard length != storedHeadDim else { return }
    for head in (0..<count).reversed() {
      let target = heads + head * storedHeadDim
      target.update(from: heads + head * length, count: length)
      (target + length).update(repeating: 0, count: storedHeadDim - length)
    }
  }

  /// Moves the heads of what attention gave a chunk's queries together.
  func joinOutput(_ output: UnsafeMutablePointer<Float>, tokenCount: Int) {
    let length = shape.valueLength
    guard length != storedHeadDim else { return }
    for token in 0..<tokenCount {
      let heads = output + token * queryStride
      for head in 0..<shape.queryHeadCount {
        (heads + head * length).update(from: heads + head * storedHeadDim, count: length)
      }
    }
  }
}
