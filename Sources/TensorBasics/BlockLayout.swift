/// How a block of a type lies in a row: all that copying, interleaving and checking need to know.
public struct BlockLayout: Sendable {
  /// Where the scale of a block stands, under which all its values are finite where it is.
  public enum Scale: Sendable, Equatable {
    /// The values are floats and have none.
    case none
    /// Numbers of eight bits that are always finite (UE4M3, as ggml reads it).
    case finite
    /// An exponent of eight bits at this byte, bias 127, halved (E8M0). From 253 on values are beyond f32's.
    case exponent(Int)
    /// An f16 that begins at this byte.
    case half(Int)
    /// An f16 scale and an f16 minimum.
    case halves(scale: Int, minimum: Int)
    /// An f16 spread over the top nibbles of the four 16-bit words that begin at this byte, the lowest first.
    case nibbles(Int)
  }

  /// The name ggml prints, e.g. `Q4_K`.
  public let name: StaticString
  /// Elements in one block: 1 for floats, otherwise 32, 64, 128 or 256.
  public let elementCount: Int
  /// Bytes of one block.
  public let byteCount: Int
  /// Where the bytes begin that are no whole 4-byte word; 0 or at the block's end.
  public let loneOffset: Int
  /// How many there are: 0, 1 or 2.
  public let loneByteCount: Int
  public let scale: Scale

  // Inlined, so that who asks for one number makes no layout of it: streams ask for each read.
  @inlinable
  init(
    _ name: StaticString, _ elementCount: Int, _ byteCount: Int, _ scale: Scale,
    lone: Range<Int> = 0..<0
  ) {
    (self.name, self.elementCount, self.byteCount) = (name, elementCount, byteCount)
    (loneOffset, loneByteCount) = (lone.lowerBound, lone.count)
    self.scale = scale
  }

  /// Where the f16 numbers lie that scale a block whole.
  public var halfOffsets: [Int] {
    switch scale {
    case .none, .finite, .exponent, .nibbles: []
    case .half(let offset): [offset]
    case .halves(let scale, let minimum): [scale, minimum]
    }
  }
}

extension ElementType {
  /// The layout of this type's blocks; bits inside are ggml's.
  @inlinable public var layout: BlockLayout {
    switch self {
    case .f32: BlockLayout("F32", 1, 4, .none)
    case .f16: BlockLayout("F16", 1, 2, .none)
    case .bf16: BlockLayout("BF16", 1, 2, .none)
    case .q4_0: BlockLayout("Q4_0", 32, 18, .half(0), lone: 0..<2)
    case .q4_1: BlockLayout("Q4_1", 32, 20, .halves(scale: 0, minimum: 2))
    case .q5_0: BlockLayout("Q5_0", 32, 22, .half(0), lone: 0..<2)
    case .q5_1: BlockLayout("Q5_1", 32, 24, .halves(scale: 0, minimum: 2))
    case .q8_0: BlockLayout("Q8_0", 32, 34, .half(0), lone: 0..<2)
    case .q2_K: BlockLayout("Q2_K", 256, 84, .halves(scale: 80, minimum: 82))
    case .q3_K: BlockLayout("Q3_K", 256, 110, .half(108), lone: 108..<110)
    case .q4_K: BlockLayout("Q4_K", 256, 144, .halves(scale: 0, minimum: 2))
    case .q5_K: BlockLayout("Q5_K", 256, 176, .halves(scale: 0, minimum: 2))
    case .q6_K: BlockLayout("Q6_K", 256, 210, .half(208), lone: 208..<210)
    case .iq2_XXS: BlockLayout("IQ2_XXS", 256, 66, .half(0), lone: 0..<2)
    case .iq2_XS: BlockLayout("IQ2_XS", 256, 74, .half(0), lone: 0..<2)
    case .iq2_S: BlockLayout("IQ2_S", 256, 82, .half(0), lone: 0..<2)
    case .iq3_XXS: BlockLayout("IQ3_XXS", 256, 98, .half(0), lone: 0..<2)
    case .iq3_S: BlockLayout("IQ3_S", 256, 110, .half(0), lone: 0..<2)
    case .iq1_S: BlockLayout("IQ1_S", 256, 50, .half(0), lone: 0..<2)
    case .iq1_M: BlockLayout("IQ1_M", 256, 56, .nibbles(48))
    case .iq4_NL: BlockLayout("IQ4_NL", 32, 18, .half(0), lone: 0..<2)
    case .iq4_XS: BlockLayout("IQ4_XS", 256, 136, .half(0))
    case .mxfp4: BlockLayout("MXFP4", 32, 17, .exponent(0), lone: 0..<1)
    case .nvfp4: BlockLayout("NVFP4", 64, 36, .finite)
    case .q1_0: BlockLayout("Q1_0", 128, 18, .half(0), lone: 0..<2)
    case .q2_0: BlockLayout("Q2_0", 64, 18, .half(0), lone: 0..<2)
    case .tq1_0: BlockLayout("TQ1_0", 256, 54, .half(52), lone: 52..<54)
    case .tq2_0: BlockLayout("TQ2_0", 256, 66, .half(64), lone: 64..<66)
    }
  }
}
