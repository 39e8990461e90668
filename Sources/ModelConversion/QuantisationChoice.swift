import Kernels
import ModelFormat
public import TensorBasics

/// A float matrix that became another type than the one asked for.
public struct QuantisationException: Sendable, Equatable {
  public let tensorName: String
  /// Length of what is divided into blocks: a row, or a column of a down matrix in bundles of single neurons.
  public let length: Int
  /// Its type in the image: the substitute, or the type it had.
  public let type: ElementType

  /// One line to print for each type and length, naming the tensors.
  public static func lines(_ exceptions: [Self], asked: ElementType) -> [String] {
    var groups: [(first: Self, names: [String])] = []
    for exception in exceptions {
      let name = exception.folded
      if let index = groups.firstIndex(where: {
        $0.first.type == exception.type && $0.first.length == exception.length
      }) {
        if !groups[index].names.contains(name) { groups[index].names.append(name) }
      } else {
        groups.append((exception, [name]))
      }
    }
    return groups.map { group in
      let names = group.names.joined(separator: ", ")
      let end =
        group.first.type.isQuantised
        ? "stored as \(group.first.type.name)" : "kept as \(group.first.type.name)"
      return "\(names): \(end), because \(group.first.length) is not a multiple of "
        + "\(group.first.type.isQuantised ? asked.blockElementCount : 32)"
    }
  }

  /// The name without the layer's number.
  private var folded: String {
    let parts = tensorName.split(separator: ".", omittingEmptySubsequences: false)
    guard parts.count > 2, parts[0] == "blk" else { return tensorName }
    return "blk.*." + parts.dropFirst(2).joined(separator: ".")
  }
}

/// Which types float matrices become when a model is quantised.
struct QuantisationChoice {
  /// The type asked for.
  let asked: ElementType

  /// - Throws: ``ConversionError/notPossible(_:)`` where floats cannot become that type.
  init(_ asked: ElementType) throws(ConversionError) {
    guard Quantisation.types.contains(asked) else {
      let names = Quantisation.types.map(\.name).joined(separator: ", ")
      throw .notPossible("floats cannot be quantised to \(asked.name), only to \(names)")
    }
    self.asked = asked
  }

  /// Whether a tensor's values become integers at all: matrices of floats but for routers, whose few weights decide
  /// much, and positions.
  static func concerns(_ record: TensorRecord) -> Bool {
    record.rowCount > 1 && !record.type.isQuantised
      && !record.name.hasSuffix(".ffn_gate_inp.weight") && record.name != "position_embd.weight"
  }

  /// The type for rows of `length` values: where they are no whole blocks of the type asked for, one of about its size in
  /// blocks of 32; nil where they are no whole blocks of that either.
  func type(forLength length: Int) -> ElementType? {
    if length % asked.blockElementCount == 0 { return asked }
    let standIn: ElementType =
      switch asked {
      case .q2_K, .q3_K, .q4_K: .iq4_NL
      default: .q8_0
      }
    return length % standIn.blockElementCount == 0 ? standIn : nil
  }
}
