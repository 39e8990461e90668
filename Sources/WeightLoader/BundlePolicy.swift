/// How a bundle's worth is judged by its uses.
public enum BundlePolicyKind: Sendable {
  case lru

  public static let standard = BundlePolicyKind.lru
}

/// Scores of bundles by their uses; the lowest leaves.
public struct BundlePolicy: Sendable {
  private var lastUse: [Int32]

  public init(_ kind: BundlePolicyKind, bundleCount: Int) {
    lastUse = [Int32](repeating: -1, count: bundleCount)
  }

  public mutating func recordUse(of key: Int, at token: Int) { lastUse[key] = Int32(token) }

  public func score(of key: Int, at token: Int) -> Double { Double(lastUse[key]) }
}
