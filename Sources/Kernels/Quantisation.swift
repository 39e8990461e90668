import Glibc
public import TensorBasics

/// Floats to quantised blocks, by ggml's reference formulas.
public enum Quantisation {
  /// Quantises one row of `columnCount` elements, a multiple of 32. Blocks with a value that is not
  /// finite are of no use afterwards, as they were before.
  ///
  /// - Parameters:
  ///   - type: `q8_0` or `q4_0`.
  ///   - output: the type's bytes of one row.
  public static func row(
    _ values: UnsafePointer<Float>, type: ElementType, columnCount: Int,
    into output: UnsafeMutableRawPointer
  ) {
    precondition(columnCount % type.blockElementCount == 0, "rows must be whole blocks")
    for block in 0..<columnCount / type.blockElementCount {
      let input = values + block * type.blockElementCount
      let bytes = output + block * type.blockByteCount
      switch type {
      case .q8_0: q8(input, into: bytes)
      case .q4_0: q4(input, into: bytes)
      default: preconditionFailure("nothing is quantised to \(type.name)")
      }
    }
  }

  /// scale = max |x| / 127, q = x / scale rounded half away from zero.
  private static func q8(_ x: UnsafePointer<Float>, into bytes: UnsafeMutableRawPointer) {
    var largest: Float = 0
    for index in 0..<32 { largest = max(largest, x[index].magnitude) }
    let scale = largest / 127
    let inverse = scale == 0 ? 0 : 1 / scale
    store(scale, bytes)
    for index in 0..<32 {
      let scaled = (x[index] * inverse).rounded(.toNearestOrAwayFromZero)
      // Neither clamp is reached by finite values; what is not finite must not trap.
      let quant = scaled.isFinite ? Int8(max(-127, min(127, scaled))) : 0
      bytes.storeBytes(of: quant, toByteOffset: 2 + index, as: Int8.self)
    }
  }

  /// scale = (the x of largest magnitude) / −8, q = ⌊x / scale + 8.5⌋ at most 15; low nibbles hold
  /// the first sixteen elements.
  private static func q4(_ x: UnsafePointer<Float>, into bytes: UnsafeMutableRawPointer) {
    var extreme: Float = 0
    for index in 0..<32 where x[index].magnitude > extreme.magnitude { extreme = x[index] }
    let scale = extreme / -8
    let inverse = scale == 0 ? 0 : 1 / scale
    store(scale, bytes)
    func quant(_ value: Float) -> UInt8 {
      let shifted = value * inverse + 8.5
      return shifted.isFinite ? UInt8(min(15, max(0, shifted))) : 8
    }
    for index in 0..<16 {
      bytes.storeBytes(
        of: quant(x[index]) | quant(x[index + 16]) << 4, toByteOffset: 2 + index, as: UInt8.self)
    }
  }

  private static func store(_ scale: Float, _ bytes: UnsafeMutableRawPointer) {
    bytes.storeBytes(of: Float16(scale).bitPattern.littleEndian, as: UInt16.self)
  }
}
