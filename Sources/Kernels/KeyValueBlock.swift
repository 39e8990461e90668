import CKernels

/// How complete blocks of keys and values are stored.
public enum KeyValueType: String, Sendable, CaseIterable {
  /// As they are computed, rounded to f16.
  case f16
  /// Eight bits a value.
  case q8
  /// Four bits a value.
  case q4

  /// Bits of a code; nil if there are no codes.
  var codeBitCount: Int? {
    switch self {
    case .f16: nil
    case .q8: 8
    case .q4: 4
    }
  }
}

/// Sixteen positions of one KV head: keys [headDim][16] f16, then values [16][headDim] f16.
public enum KeyValueGroup {
  public static let positionCount = 16

  public static func byteCount(headDim: Int) -> Int { 4 * positionCount * headDim }
}

/// The unit of storage: 128 positions, absolute, of one KV head.
///
/// As f16, or until it is complete, it is eight groups, contiguous. A quantised block keeps a centre and a
/// scale of each channel of its keys, of which some are far larger than others (KIVI, arXiv:2402.02750),
/// and of each position of its values:
///
/// 1. centres of the keys [headDim] f16, scales of the keys [headDim] f16
/// 2. centres of the values [128] f16, scales of the values [128] f16
/// 3. codes of the keys [8][headDim][16], in the order of f16 groups
/// 4. codes of the values [128][headDim]
///
/// The centre lies halfway between the least and the greatest value. A code of eight bits is a signed
/// byte q, −127...127, and stands for centre + q · scale; one of four bits is q = 0...15 and stands for
/// centre + (2q − 15) · scale. Sixteen codes of four bits are eight bytes: byte i holds code i in its low
/// nibble and code i + 8 in its high one. Numbers are little-endian.
public enum KeyValueBlock {
  public static let positionCount = 128
  public static let groupCount = positionCount / KeyValueGroup.positionCount

  public static func byteCount(headDim: Int, type: KeyValueType = .f16) -> Int {
    if let bits = type.codeBitCount {
      return 4 * headDim + 4 * positionCount + positionCount * headDim * bits / 4
    }
    return groupCount * KeyValueGroup.byteCount(headDim: headDim)
  }

  /// Rounds one position's key and value [headDim] to f16 into its place, 0..<128, of a block; values
  /// beyond f16's range become its largest.
  public static func store(
    key: UnsafePointer<Float>, value: UnsafePointer<Float>, headDim: Int, position: Int,
    into block: UnsafeMutableRawPointer, instructionSet: InstructionSet? = nil
  ) {
    let (group, slot) = position.quotientAndRemainder(dividingBy: KeyValueGroup.positionCount)
    KernelTable.of(instructionSet).pointee.store_group(
      key, value, headDim, slot,
      (block + group * KeyValueGroup.byteCount(headDim: headDim))
        .assumingMemoryBound(to: UInt16.self))
  }

  /// Reads what ``store(key:value:headDim:position:into:instructionSet:)`` made of one position's key and value
  /// [headDim].
  package static func load(
    position: Int, headDim: Int, from block: UnsafeRawPointer, key: UnsafeMutablePointer<Float>,
    value: UnsafeMutablePointer<Float>
  ) {
    let length = KeyValueGroup.positionCount
    let (group, slot) = position.quotientAndRemainder(dividingBy: length)
    let keys =
      (block + group * KeyValueGroup.byteCount(headDim: headDim))
      .assumingMemoryBound(to: Float16.self)
    let values = keys + (length + slot) * headDim
    for channel in 0..<headDim {
      key[channel] = Float(keys[channel * length + slot])
      value[channel] = Float(values[channel])
    }
  }

  /// Zeroes the positions from `position` on, 0...128, of a block of f16 groups.
  public static func clear(
    from position: Int, headDim: Int, in block: UnsafeMutableRawPointer
  ) {
    let length = KeyValueGroup.positionCount
    clearGroup(from: position, headDim: headDim, in: block)
    let whole = (position + length - 1) / length
    (block.assumingMemoryBound(to: UInt16.self) + whole * 2 * length * headDim).update(
      repeating: 0, count: (groupCount - whole) * 2 * length * headDim)
  }

  /// Zeroes what follows `position`, itself included, in the group of sixteen that it is not the first of; nothing
  /// where it is the first.
  public static func clearGroup(
    from position: Int, headDim: Int, in block: UnsafeMutableRawPointer
  ) {
    let length = KeyValueGroup.positionCount
    let (group, slot) = position.quotientAndRemainder(dividingBy: length)
    guard slot > 0 else { return }
    let keys = block.assumingMemoryBound(to: UInt16.self) + group * 2 * length * headDim
    for channel in 0..<headDim {
      (keys + channel * length + slot).update(repeating: 0, count: length - slot)
    }
    (keys + (length + slot) * headDim).update(repeating: 0, count: (length - slot) * headDim)
  }

  /// Quantises a complete block of f16 groups.
  ///
  /// - Parameter type: one with codes.
  public static func quantise(
    _ block: UnsafeRawPointer, headDim: Int, to type: KeyValueType,
    into destination: UnsafeMutableRawPointer, instructionSet: InstructionSet? = nil
  ) {
    guard let bits = type.codeBitCount else { preconditionFailure("f16 blocks have no codes") }
    KernelTable.of(instructionSet).pointee.quantise_block(
      block.assumingMemoryBound(to: UInt16.self), headDim, Int32(bits),
      destination.assumingMemoryBound(to: UInt8.self))
  }

  /// Expands a quantised block into f16 groups, each value rounded to f16.
  ///
  /// - Parameter type: one with codes.
  public static func expand(
    _ block: UnsafeRawPointer, headDim: Int, from type: KeyValueType,
    into destination: UnsafeMutableRawPointer, instructionSet: InstructionSet? = nil
  ) {
    guard let bits = type.codeBitCount else { preconditionFailure("f16 blocks have no codes") }
    KernelTable.of(instructionSet).pointee.expand_block(
      block.assumingMemoryBound(to: UInt8.self), headDim, Int32(bits),
      destination.assumingMemoryBound(to: UInt16.self))
  }
}
