import TensorBasics

/// What a model is, whatever file it lies in: a checksum over everything that decides its arithmetic, with
/// the checksums of all its weights.
///
/// Two models of one identity give equal keys and values for equal tokens. Names, vocabulary and chat
/// template are no part of it. `docs/decisions/0026` says what is encoded, and how.
public struct ModelIdentity: Hashable, Sendable, CustomStringConvertible {
  public let number: UInt64

  public init(_ number: UInt64) { self.number = number }

  /// Reads ``description``; nil for any other text.
  public init?(text: String) {
    guard text.utf8.count == 16, let number = UInt64(text, radix: 16),
      Self.text(of: number) == text.lowercased()
    else { return nil }
    self.number = number
  }

  /// As people see it: sixteen hexadecimal digits.
  public var description: String { Self.text(of: number) }

  /// Sixteen hexadecimal digits.
  public static func text(of number: UInt64) -> String {
    let digits = String(number, radix: 16)
    return String(repeating: "0", count: 16 - digits.count) + digits
  }

  /// Bytes of weights that one checksum covers, where a file brings none.
  public static let partByteCount = 1 << 20

  /// Tensors in the order that identities take them in: by name, and then by place.
  public static func order(_ tensors: [TensorRecord]) -> [TensorRecord] {
    tensors.sorted { left, right in
      let (leftName, rightName) = (Array(left.name.utf8), Array(right.name.utf8))
      if leftName != rightName { return leftName.lexicographicallyPrecedes(rightName) }
      return (left.fileIndex, left.offset) < (right.fileIndex, right.offset)
    }
  }
}

extension ModelDescription {
  /// The identity of a model in an image, whose header has checksums of all weights; nil if the file has
  /// none.
  ///
  /// Readers compare such weights with these checksums, so the identity holds for what was read.
  public var imageIdentity: ModelIdentity? {
    guard let configuration, let data = extents.first?.offset else { return nil }
    var bytes = CanonicalBytes(configuration, tensors: tensors, neurons: neurons)
    // Places count from the first weight on: a longer chat template moves them all.
    for tensor in ModelIdentity.order(tensors) {
      bytes.integers(.tensorPlace, [tensor.offset - data, tensor.stack?.byteStride ?? 0])
    }
    for layer in neurons?.layers ?? [] {
      bytes.integers(
        .bundlePlace, [layer.offset - data, layer.byteStride, layer.checksumOffset - data])
    }
    for extent in extents {
      bytes.integers(.extent, [extent.offset - data, extent.byteCount])
      bytes.checksums([extent.checksum])
    }
    return bytes.identity
  }

  /// The identity of a model whose weights were read.
  ///
  /// - Parameter checksums: XXH3-64 of each ``ModelIdentity/partByteCount`` bytes of each of
  ///   ``storedTensors`` (its last part may be shorter), in ``ModelIdentity/order(_:)``.
  /// - Returns: nil for a file that describes no model.
  public func identity(checksums: [UInt64]) -> ModelIdentity? {
    guard var bytes = graphBytes else { return nil }
    bytes.checksums(checksums)
    return bytes.identity
  }

  /// A checksum of everything that an identity covers but the weights.
  public var graphChecksum: UInt64 { graphBytes?.identity.number ?? 0 }

  private var graphBytes: CanonicalBytes? {
    guard let configuration else { return nil }
    var bytes = CanonicalBytes(configuration, tensors: storedTensors, neurons: neurons)
    bytes.addPartOrder(of: tensors)
    bytes.add(derivations)
    return bytes
  }
}
