/// A number that arXiv 2409.04992 prints, beside the model's.
public struct PublishedFigure: Sendable, Equatable {
  public enum Kind: String, Sendable {
    /// A parameter of the model, or a ratio of parameters.
    case input
    /// A parameter, or one of two readings of the paper, was chosen with this number in view.
    case constrained
    /// Came out.
    case predicted
  }

  public enum Level: String, Sendable {
    /// Of a drive, or a ratio of drives to drives.
    case device
    /// Of whole systems whose absolute rates the paper does not print.
    case system
  }

  public let name: String
  public let kind: Kind
  public let level: Level
  public let published: Double
  public let modelled: Double

  init(_ name: String, _ kind: Kind, _ level: Level, _ published: Double, _ modelled: Double) {
    self.name = name
    self.kind = kind
    self.level = level
    self.published = published
    self.modelled = modelled
  }

  /// Modelled ÷ published − 1.
  public var error: Double { modelled / published - 1 }
}
