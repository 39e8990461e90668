import TensorBasics

extension FlashImage {
  /// Where everything of an image will lie, planned from a source before a byte is written.
  ///
  /// A writer puts each tensor of ``description`` at its offset in its layout, computes extent
  /// checksums, and writes ``preamble(checksums:)`` at the beginning of the file last.
  public struct Layout: Sendable {
    /// The image's model: tensors with their places in the file, in ascending offset; extents, whose
    /// checksums are 0.
    public let description: ModelDescription
    /// Where the data begins; what lies before it is the preamble.
    public let dataOffset: Int
    /// Length of the whole image, a multiple of 4096.
    public let fileByteCount: Int
    private let tokenizer: FlashImageHeader.Tokenizer?

    /// Plans the image of `source`, of whose tensors only names, types and shapes count.
    ///
    /// - Parameters:
    ///   - source: The model; types of its tensors are the image's types.
    ///   - bundling: What lies together; nil = each expert, where the model has experts. In bundles of
    ///     single neurons the type of a down matrix is that of its columns.
    ///   - selector: What chooses neurons, for bundles of them.
    ///   - extentByteCount: How long extents become at most, at least 4096.
    /// - Throws: ``FormatError`` where `source` does not fit its own configuration, or has nothing to put
    ///   in such bundles.
    public init(
      for source: ModelDescription, bundling: Bundling? = nil, selector: NeuronSelection? = nil,
      extentByteCount: Int = FlashImage.defaultExtentByteCount
    ) throws(FormatError) {
      try source.validate()
      let hasExperts = source.configuration?.experts != nil
      guard hasExperts || bundling != .experts else {
        throw FormatError(.unsupported, "the model is dense; there are no experts to bundle")
      }
      var plan = source
      plan.files = []
      if let bundling, bundling.isOfNeurons {
        try Self.bundleNeurons(of: &plan, single: bundling == .singleNeurons, selector)
      }
      plan.tensors = try Self.orderedTensors(plan)
      let dataByteCount = Self.place(&plan, inBundles: hasExperts && bundling != Bundling.none)
      plan.extents = Self.extents(plan, target: max(extentByteCount, FlashImage.alignment))
      var tokenizer = source.tokenizer.map(FlashImageHeader.Tokenizer.init)

      // Offsets depend on the header's length and the other way round: plan with longer offsets than
      // any file has, which bounds the length.
      tokenizer?.offset = Self.longOffset
      let header = FlashImageHeader(
        dataOffset: Self.longOffset, description: plan.moved(by: Self.longOffset),
        tokenizer: tokenizer)
      let headerEnd = FlashImage.roundedUp(
        FlashImagePrologue.byteCount + (try header.encode()).count)
      tokenizer?.offset = headerEnd
      dataOffset = FlashImage.roundedUp(headerEnd + (tokenizer?.byteCount ?? 0))
      fileByteCount = dataOffset + dataByteCount
      self.tokenizer = tokenizer
      description = plan.moved(by: dataOffset)
    }

    /// Sixteen digits: longer than any offset in use, and exact in JSON.
    private static let longOffset = 1_000_000_000_000_000

    /// The first ``dataOffset`` bytes of the image: prologue, header, tokenizer section, padding.
    ///
    /// - Parameter checksums: XXH3-64 of each extent.
    /// - Throws: ``FormatError`` if the header cannot be expressed in JSON.
    public func preamble(checksums: [UInt64]) throws(FormatError) -> [UInt8] {
      precondition(checksums.count == description.extents.count, "one checksum an extent")
      var description = description
      for (index, checksum) in checksums.enumerated() {
        description.extents[index].checksum = checksum
      }
      let section = description.tokenizer.map(FlashImageHeader.Tokenizer.section) ?? []
      var tokenizer = tokenizer
      tokenizer?.checksum = HexChecksum(section.withUnsafeBytes(Checksum.of))
      let header = try FlashImageHeader(
        dataOffset: dataOffset, description: description, tokenizer: tokenizer
      ).encode()

      var bytes: [UInt8] = []
      bytes.reserveCapacity(dataOffset)
      FlashImagePrologue(
        flags: FlashImagePrologue.flags(description.configuration), headerByteCount: header.count,
        headerChecksum: header.withUnsafeBytes(Checksum.of), fileByteCount: fileByteCount
      ).encode(into: &bytes)
      bytes += header
      if let tokenizer {
        bytes.padWithZeros(to: tokenizer.offset)
        bytes += section
      }
      bytes.padWithZeros(to: dataOffset)
      return bytes
    }
  }
}

extension FlashImage.Layout {
  /// The image's tensors in its order, with their layouts and lengths but not yet their offsets.
  private static func orderedTensors(
    _ source: ModelDescription
  ) throws(FormatError) -> [TensorRecord] {
    guard let configuration = source.configuration, !source.tensors.isEmpty else { return [] }
    let table = try TensorTable(source.tensors)
    let expected = source.expectedTensors
    let head = configuration.outputHeadName
    let order =
      expected.filter { $0.rowCount == 1 }
      + expected.filter { $0.rowCount > 1 && $0.name != head }
      + expected.filter { $0.rowCount > 1 && $0.name == head }
    var tensors: [TensorRecord] = []
    for expectation in order {
      guard var tensor = table[expectation.name] else { continue }  // an optional one
      let isLookedUpOnly = expectation.role == .table && tensor.name != head
      tensor.layout = tensor.rowCount == 1 || isLookedUpOnly ? .rowMajor : .interleaved
      tensor.fileIndex = 0
      guard let byteCount = tensor.expectedByteCount else {
        throw FormatError(
          .unsupported,
          "tensor \"\(tensor.name)\" has rows of \(tensor.columnCount) elements, which"
            + " \(tensor.type.name) cannot store")
      }
      tensor.byteCount = byteCount
      if let count = tensor.stack?.count {
        tensor.stack = ExpertStack(count: count, byteStride: byteCount / count)
      }
      tensors.append(tensor)
    }
    return tensors
  }

  /// Gives tensors their offsets in the data and returns the data's length.
  ///
  /// Stacked tensors follow each other in the order of a bundle.
  private static func place(_ plan: inout ModelDescription, inBundles: Bool) -> Int {
    var tensors = plan.tensors
    defer { plan.tensors = tensors }
    var offset = 0
    var index = 0
    while index < tensors.count {
      guard inBundles, let count = tensors[index].stack?.count else {
        tensors[index].offset = offset
        offset = FlashImage.roundedUp(offset + tensors[index].byteCount)
        if let layer = tensors[index].selectedLayer {
          offset = plan.neurons?.layers[layer].place(at: offset) ?? offset
        }
        index += 1
        continue
      }
      let members = index..<index + TensorRecord.bundledTensorCount
      let stride = FlashImage.roundedUp(tensors[members].reduce(0) { $0 + $1.partByteCount })
      var partOffset = offset
      for member in members {
        tensors[member].offset = partOffset
        partOffset += tensors[member].partByteCount
        tensors[member].stack = ExpertStack(count: count, byteStride: stride)
      }
      offset += count * stride
      index = members.upperBound
    }
    return offset
  }

  /// Cuts the data: all vectors together; each matrix, each expert's bundle and each layer's bundles of
  /// neurons by themselves.
  private static func extents(_ plan: ModelDescription, target: Int) -> [ExtentRecord] {
    let tensors = plan.tensors
    let vectors = tensors.prefix { $0.rowCount == 1 }
    var extents: [ExtentRecord] = []
    if let last = vectors.last {
      let byteCount = FlashImage.roundedUp(last.offset + last.byteCount)
      appendPieces(of: 0..<byteCount, unit: FlashImage.alignment, target, &extents)
    }
    for tensor in tensors.dropFirst(vectors.count) {
      if let stack = tensor.stack, tensor.isBundled {
        guard tensor.bundleTensorPlace == 0 else { continue }
        for number in 0..<stack.count {
          let start = tensor.offset + number * stack.byteStride
          appendPieces(
            of: start..<start + stack.byteStride, unit: FlashImage.alignment, target, &extents)
        }
        continue
      }
      let end = FlashImage.roundedUp(tensor.offset + tensor.byteCount)
      let target =
        DecoderConfiguration.tableNames.contains(tensor.name)
        ? min(target, FlashImage.tableExtentByteCount) : target
      appendPieces(of: tensor.offset..<end, unit: tensor.rowUnitByteCount, target, &extents)
      if let layer = tensor.selectedLayer, let bundles = plan.neurons?.layers[layer] {
        for range in [bundles.checksumOffset..<bundles.offset, bundles.bundleRange] {
          appendPieces(of: range, unit: FlashImage.alignment, target, &extents)
        }
      }
    }
    return extents
  }

  /// Cuts `range` into pieces of nearly equal length, at most `target`: where units end on 4 KiB
  /// boundaries if that is often enough, otherwise on any 4 KiB boundary.
  private static func appendPieces(
    of range: Range<Int>, unit: Int, _ target: Int, _ extents: inout [ExtentRecord]
  ) {
    // Units meet 4 KiB boundaries every least common multiple of both.
    let commonFactor = min(unit & -unit, FlashImage.alignment)
    let multiple = unit / commonFactor * FlashImage.alignment
    let grain = multiple <= target ? multiple : FlashImage.alignment
    let grainCount = (range.count + grain - 1) / grain
    let grainsPerPiece = target / grain
    let pieceCount = (grainCount + grainsPerPiece - 1) / grainsPerPiece
    var start = range.lowerBound
    for piece in 1...pieceCount {
      let end = min(range.lowerBound + piece * grainCount / pieceCount * grain, range.upperBound)
      extents.append(ExtentRecord(offset: start, byteCount: end - start, checksum: 0))
      start = end
    }
  }
}

extension ModelDescription {
  /// The same with tensors and extents `distance` bytes further on.
  fileprivate func moved(by distance: Int) -> ModelDescription {
    var result = self
    for index in result.tensors.indices { result.tensors[index].offset += distance }
    for index in result.extents.indices { result.extents[index].offset += distance }
    for index in result.neurons?.layers.indices ?? 0..<0 {
      result.neurons?.layers[index].offset += distance
      result.neurons?.layers[index].checksumOffset += distance
    }
    return result
  }
}
