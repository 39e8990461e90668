import TensorBasics

/// How a matrix lies in its file whose bytes there are not rows of an element type: a conversion unpacks it.
///
/// A record of such a matrix states the type that it becomes, and the place and length that it has.
public struct PackedMatrix: Sendable, Equatable {
  /// What a row's bytes are.
  public enum Form: Int, Sendable {
    /// One byte an element: 1 sign, 4 exponent and 3 mantissa bits, no infinities.
    case e4m3 = 1
    /// One byte an element: 1 sign, 5 exponent and 2 mantissa bits, the upper half of an f16.
    case e5m2
    /// Half a byte an element, eight to a little-endian word, the lowest bits first; 8 stands for zero.
    case int4
    /// Half a byte an element, the lower half first: 1 sign, 2 exponent and 1 mantissa bits. A scale for each 32.
    case e2m1
  }

  /// Numbers that elements are multiplied with, one for each block of rows and columns.
  public struct Scales: Sendable, Equatable {
    public enum NumberType: Int, Sendable {
      case f32 = 1
      case f16
      case bf16
      /// A power of two: 2^(byte − 127).
      case e8m0

      public var byteCount: Int {
        switch self {
        case .f32: 4
        case .f16, .bf16: 2
        case .e8m0: 1
        }
      }
    }

    public var type: NumberType
    /// Rows and columns of a block; the last of either may be partial.
    public var blockRowCount: Int
    public var blockColumnCount: Int
    /// Scales of a row of blocks, and rows of blocks.
    public var columnCount: Int
    public var rowCount: Int
    /// Where the scales of each part begin; of a plain matrix one place.
    public var places: [ExpertStack.Place]

    /// Bytes of one part's scales.
    public var byteCount: Int { rowCount * columnCount * type.byteCount }
  }

  public var form: Form
  public var scales: Scales
  /// Where the file states the rows and columns of each part, as two integers of 8 bytes; empty where it does not.
  public var shapes: [ExpertStack.Place] = []
  /// Rows before the matrix, or before each part, that the scales count too.
  public var firstRow = 0
  /// Rows from one of the matrix's to the next, in what is stored and in the scales.
  ///
  /// Where it is not 1, the record's rows are so many stored ones, and its own is the one numbered ``firstRow``.
  public var rowStep = 1

  /// What the file's format calls it.
  public var name: String {
    switch form {
    case .e4m3: "F8_E4M3"
    case .e5m2: "F8_E5M2"
    case .int4: "int4"
    case .e2m1: "MXFP4"
    }
  }

  /// The type that its values are stored in once they are unpacked, without further loss where it can be.
  var unpackedType: ElementType {
    switch form {
    case .e4m3, .e5m2: .bf16
    case .int4: .q4_0
    case .e2m1: .mxfp4
    }
  }

  /// Elements in what the file counts as one.
  var elementsPerStoredElement: Int {
    switch form {
    case .e4m3, .e5m2: 1
    case .int4: 8
    case .e2m1: 2
    }
  }

  /// The same with the scales and stated shapes of all of `parts`.
  func placed(as parts: [PackedMatrix]) -> PackedMatrix {
    var matrix = self
    matrix.scales.places = parts.flatMap(\.scales.places)
    matrix.shapes = parts.flatMap(\.shapes)
    return matrix
  }
}

extension ModelDescription {
  /// Why the model cannot be run as it lies in its files, and what to do about it; nil if it can.
  public var needsConversion: String? {
    for tensor in tensors {
      if case .transposed = derivations[tensor.name] {
        return
          "its experts are stored transposed, which are not run as they lie there: convert the folder "
          + "with flashinfer-convert"
      }
      guard case .packed(let matrix) = derivations[tensor.name] else { continue }
      return
        "its weights are \(matrix.name) with scales, which are not run as they lie there: convert "
        + "the folder with flashinfer-convert, which makes them \(tensor.type.name)"
        + (tensor.type.isQuantised ? "" : ", or quantises them with --quantize")
    }
    return nil
  }
}
