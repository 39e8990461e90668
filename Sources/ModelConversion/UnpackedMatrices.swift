import ModelFormat
public import TensorBasics

/// Matrices that a conversion unpacks: of one packing, to one type.
public struct UnpackedMatrices: Sendable, Equatable {
  /// What the source's format calls its numbers: F8_E4M3, F8_E5M2, int4 or MXFP4.
  public let packing: String
  /// What they are in the image.
  public let type: ElementType
  /// Whether the image has the values as they were, not rounded.
  public let isExact: Bool
  public internal(set) var count: Int
  /// Bytes of the matrices in the source, without scales.
  public internal(set) var byteCount: Int

  /// - Parameter plan: the description of the image; its tensors are those of `source`, in the same order.
  static func groups(_ source: ModelDescription, _ plan: ModelDescription) -> [Self] {
    var groups: [Self] = []
    for (tensor, planned) in zip(source.tensors, plan.tensors) {
      guard case .packed(let matrix) = source.derivations[tensor.name] else { continue }
      let index = groups.firstIndex { $0.packing == matrix.name && $0.type == planned.type }
      if let index {
        groups[index].count += 1
        groups[index].byteCount += tensor.byteCount
      } else {
        groups.append(
          UnpackedMatrices(
            packing: matrix.name, type: planned.type,
            isExact: (matrix.form == .int4 && planned.type == .q4_0)
              || (matrix.form == .e2m1 && planned.type == .mxfp4), count: 1,
            byteCount: tensor.byteCount))
      }
    }
    return groups
  }
}
