// swift-format-ignore-file: AlwaysUseLowerCamelCase
// Cases are spelled as ggml spells its types.

/// A tensor's storage type: plain floats, or ggml's quantised blocks.
///
/// Raw values are ggml's type numbers, as they stand in GGUF files.
public enum ElementType: UInt32, CaseIterable, Sendable, Codable {
  case f32 = 0
  case f16 = 1
  case q4_0 = 2
  case q4_1 = 3
  case q5_0 = 6
  case q5_1 = 7
  case q8_0 = 8
  case q2_K = 10
  case q3_K = 11
  case q4_K = 12
  case q5_K = 13
  case q6_K = 14
  case iq2_XXS = 16
  case iq2_XS = 17
  case iq3_XXS = 18
  case iq1_S = 19
  case iq4_NL = 20
  case iq3_S = 21
  case iq2_S = 22
  case iq4_XS = 23
  case iq1_M = 29
  case bf16 = 30
  case tq1_0 = 34
  case tq2_0 = 35
  case mxfp4 = 39
  case nvfp4 = 40
  case q1_0 = 41
  case q2_0 = 42

  /// Elements in one block: 1 for floats, otherwise 32, 64, 128 or 256.
  @inlinable public var blockElementCount: Int { layout.elementCount }

  /// Bytes of one block.
  @inlinable public var blockByteCount: Int { layout.byteCount }

  /// Whether values are integers under a block scale.
  @inlinable public var isQuantised: Bool { blockElementCount > 1 }

  /// The name ggml prints, e.g. `Q4_K`.
  public var name: String { layout.name.description }

  /// The type whose ``name`` is `name`.
  public init?(name: String) {
    guard let match = Self.allCases.first(where: { $0.name == name }) else { return nil }
    self = match
  }

  /// Bytes of one row of `columnCount` elements, or nil if that is not a whole number of blocks.
  public func rowByteCount(columnCount: Int) -> Int? {
    guard columnCount > 0, columnCount % blockElementCount == 0 else { return nil }
    let (bytes, overflow) = (columnCount / blockElementCount)
      .multipliedReportingOverflow(by: blockByteCount)
    return overflow ? nil : bytes
  }
}
