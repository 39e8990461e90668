/// Which experts a router chose: for each token, for each layer, in the router's order.
public struct ExpertTrace: Sendable, Equatable {
  public let layerCount: Int
  /// Experts of a layer.
  public let expertCount: Int
  /// Experts that a layer runs for a token.
  public let usedCount: Int
  /// The model that was run, for people; at most `modelNameByteLimit` bytes are kept in a file.
  public var modelName: String
  /// Checksum of the model's header; 0 if there is none.
  public var modelChecksum: UInt64
  /// The choices, [tokens, layers, used].
  public private(set) var choices: [UInt16] = []

  /// More layers than any model has.
  static let layerLimit = 4096
  /// More experts than any layer has.
  static let expertLimit = 4096
  static let modelNameByteLimit = 1024

  public init(
    layerCount: Int, expertCount: Int, usedCount: Int, modelName: String = "",
    modelChecksum: UInt64 = 0
  ) {
    precondition((1...Self.layerLimit).contains(layerCount), "\(layerCount) layers")
    precondition((1...Self.expertLimit).contains(expertCount), "\(expertCount) experts")
    precondition((1...expertCount).contains(usedCount), "\(usedCount) of \(expertCount) used")
    self.layerCount = layerCount
    self.expertCount = expertCount
    self.usedCount = usedCount
    self.modelName = modelName
    self.modelChecksum = modelChecksum
  }

  /// Bundles of the model: layers × experts of a layer.
  public var bundleCount: Int { layerCount * expertCount }

  /// Tokens whose every layer was appended.
  public var tokenCount: Int { choices.count / (layerCount * usedCount) }

  /// Uses of bundles by all whole tokens.
  public var useCount: Int { tokenCount * layerCount * usedCount }

  /// Makes room, so that appending `tokenCount` tokens allocates nothing.
  public mutating func reserve(tokenCount: Int) {
    choices.reserveCapacity(choices.count + tokenCount * layerCount * usedCount)
  }

  /// Appends the choice of the next layer: layer 0 first; after the last layer, the next token's layer 0.
  ///
  /// - Parameter experts: ``usedCount`` different numbers below ``expertCount``.
  public mutating func append(_ experts: some Sequence<Int>) {
    let before = choices.count
    for expert in experts {
      precondition((0..<expertCount).contains(expert), "expert \(expert) of \(expertCount)")
      choices.append(UInt16(expert))
    }
    precondition(choices.count - before == usedCount, "a layer uses \(usedCount) experts")
  }

  /// Removes the layers of a token that was not completed.
  public mutating func dropPartialToken() {
    choices.removeLast(choices.count % (layerCount * usedCount))
  }

  /// The experts that `layer` used for `token`.
  public subscript(token: Int, layer: Int) -> ArraySlice<UInt16> {
    precondition((0..<layerCount).contains(layer), "layer \(layer) of \(layerCount)")
    let start = (token * layerCount + layer) * usedCount
    return choices[start..<start + usedCount]
  }

  /// The bundle of a use, counted through tokens, layers and the router's order.
  func key(ofUse index: Int) -> Int {
    index / usedCount % layerCount * expertCount + Int(choices[index])
  }
}
