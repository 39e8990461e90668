import TensorBasics

/// Checks that an image's tensors and extents lie where `docs/format.md` wants them.
struct FlashImageGeometry {
  let description: ModelDescription
  /// The file's data.
  let data: Range<Int>
  let path: String

  /// Shapes have been validated against the configuration, so products of them cannot overflow.
  func validate() throws(FormatError) {
    try validateTensors()
    try validateNeurons()
    try validateExtents()
  }

  private func error(at offset: Int, _ message: String) -> FormatError {
    FormatError(.malformed, at: offset, path: path, message)
  }

  private func validateTensors() throws(FormatError) {
    var end = data.lowerBound
    var index = 0
    while index < description.tensors.count {
      let tensor = description.tensors[index]
      try validateShape(of: tensor)
      if tensor.isBundled {
        end = try validateBundles(from: index, after: end)
        index += TensorRecord.bundledTensorCount
        continue
      }
      guard tensor.offset % FlashImage.alignment == 0, tensor.offset >= end,
        tensor.offset <= data.upperBound, tensor.byteCount <= data.upperBound - tensor.offset
      else {
        throw error(
          at: tensor.offset,
          "tensor \"\(tensor.name)\" is not aligned, overlaps the one before, or extends past the file"
        )
      }
      end = FlashImage.roundedUp(tensor.offset + tensor.byteCount)
      index += 1
    }
  }

  /// Layout and length of a tensor by itself.
  private func validateShape(of tensor: TensorRecord) throws(FormatError) {
    guard tensor.rowCount > 1 || tensor.layout == .rowMajor else {
      throw error(at: tensor.offset, "vector \"\(tensor.name)\" is interleaved")
    }
    guard tensor.stack == nil || tensor.layout == .interleaved else {
      throw error(at: tensor.offset, "the experts in \"\(tensor.name)\" are not interleaved")
    }
    guard let byteCount = tensor.expectedByteCount, byteCount == tensor.byteCount else {
      throw error(
        at: tensor.offset,
        "tensor \"\(tensor.name)\" has \(tensor.byteCount) bytes, which does not match its shape")
    }
  }

  /// Checks the bundles of a layer, whose first tensor is number `first`.
  ///
  /// - Parameter end: where what lies before them ends.
  /// - Returns: where they end.
  private func validateBundles(from first: Int, after end: Int) throws(FormatError) -> Int {
    let gate = description.tensors[first]
    let last = first + TensorRecord.bundledTensorCount - 1
    guard let stack = gate.stack, gate.bundleTensorPlace == 0, last < description.tensors.count,
      gate.offset % FlashImage.alignment == 0, gate.offset >= end
    else {
      throw error(
        at: gate.offset,
        "tensor \"\(gate.name)\" does not begin the bundles of a layer, is not aligned or overlaps"
          + " what lies before")
    }
    var partEnd = gate.offset
    for (place, tensor) in description.tensors[first...last].enumerated() {
      try validateShape(of: tensor)
      guard tensor.stack == stack, tensor.bundleTensorPlace == place,
        tensor.layerPrefix == gate.layerPrefix, tensor.offset == partEnd,
        tensor.partByteCount <= data.upperBound - partEnd
      else {
        throw error(
          at: tensor.offset, "tensor \"\(tensor.name)\" is not at its place in the bundle")
      }
      partEnd += tensor.partByteCount
    }
    guard stack.byteStride == FlashImage.roundedUp(partEnd - gate.offset),
      stack.byteStride <= (data.upperBound - gate.offset) / stack.count
    else {
      throw error(
        at: gate.offset,
        "the bundles of \"\(gate.name)\" have a wrong stride or extend past the file")
    }
    return gate.offset + stack.count * stack.byteStride
  }

  /// Each layer's checksums and bundles lie in the data, together, and apart from everything else.
  private func validateNeurons() throws(FormatError) {
    guard let layers = description.neurons?.layers else { return }
    var spans = description.tensors.map {
      $0.offset..<FlashImage.roundedUp($0.offset + $0.byteCount)
    }
    for layer in layers {
      guard layer.checksumOffset % FlashImage.alignment == 0,
        data.contains(layer.checksumOffset), data.contains(layer.offset),
        layer.offset - layer.checksumOffset == FlashImage.roundedUp(layer.checksumByteCount),
        layer.byteStride <= (data.upperBound - layer.offset) / layer.bundleCount
      else {
        throw error(
          at: layer.offset,
          "bundles of neurons are not aligned, not after their checksums, or extend past the file")
      }
      spans.append(layer.byteSpan)
    }
    spans.sort { $0.lowerBound < $1.lowerBound }
    for (first, second) in zip(spans, spans.dropFirst())
    where first.upperBound > second.lowerBound {
      throw error(at: second.lowerBound, "bundles of neurons overlap what lies before")
    }
  }

  /// Extents follow each other without gap; each matrix, and each bundle, is a whole number of them.
  private func validateExtents() throws(FormatError) {
    var end = data.lowerBound
    var starts: Set<Int> = []
    for extent in description.extents {
      guard extent.offset == end, extent.byteCount > 0,
        extent.byteCount % FlashImage.alignment == 0, extent.byteCount <= data.upperBound - end
      else { throw error(at: extent.offset, "extents do not cover the data one after the other") }
      starts.insert(end)
      end += extent.byteCount
    }
    guard end == data.upperBound else {
      throw error(at: end, "no extent covers the data from here")
    }
    starts.insert(end)
    for layer in description.neurons?.layers ?? [] {
      let places = [layer.checksumOffset, layer.offset, layer.byteSpan.upperBound]
      guard places.allSatisfy(starts.contains) else {
        throw error(
          at: layer.offset, "a layer's bundles of neurons are not a whole number of extents")
      }
    }
    for tensor in description.tensors where tensor.rowCount > 1 {
      guard tensor.isBundled else {
        let tensorEnd = FlashImage.roundedUp(tensor.offset + tensor.byteCount)
        guard starts.contains(tensor.offset), starts.contains(tensorEnd) else {
          throw error(
            at: tensor.offset, "tensor \"\(tensor.name)\" is not a whole number of extents")
        }
        continue
      }
      guard let stack = tensor.stack, tensor.bundleTensorPlace == 0 else { continue }
      for number in 0...stack.count
      where !starts.contains(tensor.offset + number * stack.byteStride) {
        throw error(
          at: tensor.offset + number * stack.byteStride,
          "a bundle of \"\(tensor.name)\" is not a whole number of extents")
      }
    }
  }
}

extension TensorRecord {
  /// Bytes that type, shape and layout make, or nil if rows are not whole blocks.
  ///
  /// Shapes must be within the bounds of ``DecoderConfiguration/validate(path:)``.
  var expectedByteCount: Int? {
    guard let rowByteCount = type.rowByteCount(columnCount: columnCount) else { return nil }
    return switch layout {
    case .rowMajor: rowByteCount * rowCount
    case .interleaved:
      (stack?.count ?? 1) * RowGroup.groupCount(rows: partRowCount)
        * RowGroup.byteCount(type, columnCount: columnCount)
    }
  }

  /// The tensors of a layer whose parts a bundle holds, in its order.
  private static let bundledNames = [
    "ffn_gate_exps.weight", "ffn_up_exps.weight", "ffn_down_exps.weight",
  ]
  static var bundledTensorCount: Int { bundledNames.count }

  /// Where in a bundle the tensor's parts lie: 0, 1 or 2; nil for any other tensor.
  var bundleTensorPlace: Int? { Self.bundledNames.firstIndex { name.hasSuffix("." + $0) } }

  /// The name without its last two components: `blk.3` of `blk.3.ffn_up_exps.weight`.
  var layerPrefix: String {
    name.split(separator: ".", omittingEmptySubsequences: false).dropLast(2).joined(separator: ".")
  }

  /// Bytes after which rows begin anew: a row, or a row group when interleaved.
  var rowUnitByteCount: Int {
    switch layout {
    case .rowMajor: byteCount / rowCount
    case .interleaved: RowGroup.byteCount(type, columnCount: columnCount)
    }
  }
}
