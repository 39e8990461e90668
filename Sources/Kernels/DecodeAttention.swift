/// Attention of single tokens over keys and values that lie elsewhere than in the host's memory, such as in
/// a computational storage drive.
///
/// Attention is a left fold of tiles of 512 positions (``AttentionTile``), in ascending order, and its partials do not
/// associate to the bit. So this does not give a result of its own: it continues a running partial, and the host
/// goes on with the tiles after its own, if there are any, and finishes (`docs/decisions/0047`). Prompts are read by the
/// host, which keeps keys and values of its own.
///
/// One thread uses it.
public protocol DecodeAttention: AnyObject {
  /// How many of the newest positions, a token's own included, the host attends over by itself, rounded up to
  /// whole tiles; 0 = none.
  ///
  /// With 0, positions are handed over as they are computed. Otherwise they are handed over by complete tiles, each
  /// when the window has left it and its tokens have passed all layers.
  var hostWindow: Int { get }

  /// Takes the keys and values of `tokenCount` positions from `position` on.
  ///
  /// They follow those before, or begin at a later multiple of 128 where a layer's sliding window has passed all
  /// that lies between.
  ///
  /// - Parameters:
  ///   - keys: [tokenCount, keyValueHeadCount, headDim], after RoPE.
  ///   - values: of the same shape.
  func append(
    layer: Int, position: Int, tokenCount: Int, keys: UnsafePointer<Float>,
    values: UnsafePointer<Float>) throws

  /// Merges the tiles that hold `visible` into running partials, one by one and in ascending order.
  ///
  /// - Parameters:
  ///   - visible: ends with a tile or with the token itself.
  ///   - queries: [queryHeadCount, headDim], scaled and rotated.
  ///   - partials: those of the tiles before; anything where nothing is continued.
  ///   - continues: whether there are tiles before that have been merged.
  func fold(
    layer: Int, visible: VisibleRange, queries: UnsafePointer<Float>, into partials: TokenPartials,
    continues: Bool) throws

  /// Forgets every position.
  func reset()
}
