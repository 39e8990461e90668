public import TensorBasics

/// Floats to quantised blocks, with a search for the scales that lose least.
///
/// Without samples of activations it is not known how much each weight matters; larger weights count more in the
/// error that is minimised, as is usual. What a block becomes depends on its values alone.
public enum Quantisation {
  /// The types that floats can become.
  public static let types: [ElementType] = [
    .q8_0, .q6_K, .q5_K, .q4_K, .q4_0, .q3_K, .q2_K, .iq4_NL, .mxfp4,
  ]

  /// Quantises one row of `columnCount` elements, whole blocks. Blocks with a value that is not
  /// finite are of no use afterwards, as they were before.
  ///
  /// - Parameters:
  ///   - values: [columnCount].
  ///   - type: one of ``types``.
  ///   - output: the type's bytes of one row.
  public static func row(
    _ values: UnsafePointer<Float>, type: ElementType, columnCount: Int,
    into output: UnsafeMutableRawPointer
  ) {
    precondition(columnCount % type.blockElementCount == 0, "rows must be whole blocks")
    let superBlock = SuperBlockForm(type).map(SuperBlock.init)
    for block in 0..<columnCount / type.blockElementCount {
      let input = values + block * type.blockElementCount
      let bytes = BlockBytes(address: output + block * type.blockByteCount)
      bytes.clear(type.blockByteCount)
      switch type {
      case .q8_0: bytes.q8(input)
      case .q4_0: bytes.q4(input)
      case .iq4_NL: bytes.iq4(input)
      case .mxfp4: bytes.mxfp4(input)
      default:
        guard let superBlock else { preconditionFailure("nothing is quantised to \(type.name)") }
        superBlock.fit(input)
        bytes.pack(superBlock, as: type)
      }
    }
  }
}

/// The bytes of one block, row-major, being written.
struct BlockBytes {
  let address: UnsafeMutableRawPointer

  func clear(_ byteCount: Int) {
    address.initializeMemory(as: UInt8.self, repeating: 0, count: byteCount)
  }

  func set(_ offset: Int, _ value: UInt8) {
    address.storeBytes(of: value, toByteOffset: offset, as: UInt8.self)
  }

  /// Sets bits that are 0.
  func add(_ offset: Int, _ bits: UInt8) {
    set(offset, address.load(fromByteOffset: offset, as: UInt8.self) | bits)
  }

  func setHalf(_ offset: Int, _ value: Float) {
    address.storeBytes(
      of: Float16(value).bitPattern.littleEndian, toByteOffset: offset, as: UInt16.self)
  }
}
