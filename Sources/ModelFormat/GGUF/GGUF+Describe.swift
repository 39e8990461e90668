import TensorBasics

extension GGUF {
  /// Says what a GGUF model holds, copying all of it out of the header.
  ///
  /// A model without tensors (a vocabulary alone) may be of any architecture; its configuration is nil
  /// where it is not a supported one. A tokenizer that is not supported leaves
  /// ``ModelDescription/tokenizer`` nil and its reason in ``ModelDescription/tokenizerProblem``.
  ///
  /// - Parameters:
  ///   - files: The one file, or all members of a split model in order.
  ///   - header: The bytes the first of them was parsed from.
  /// - Throws: ``FormatError`` for an architecture, hyper-parameter or set of tensors that is not
  ///   supported or contradicts itself, and for members that do not belong together.
  public static func describe(
    _ files: [GGUFFile], header: UnsafeRawBufferPointer
  ) throws(FormatError) -> ModelDescription {
    precondition(!files.isEmpty, "a model is in a file")
    try checkTensors(of: files)
    let metadata = GGUFMetadataReader(files[0], header: header)
    var description = ModelDescription(
      chatTemplate: try metadata.string("tokenizer.chat_template"),
      name: try metadata.string("general.name"), files: files.map(\.path))
    for (index, file) in files.enumerated() {
      description.tensors += file.tensors.map { TensorRecord($0, fileIndex: index) }
    }
    do throws(FormatError) {
      description.tokenizer = try tokenizer(metadata)
      try description.tokenizer?.validate(path: files[0].path)
    } catch {
      guard error.kind == .unsupported else { throw error }
      description.tokenizerProblem = error
    }
    do throws(FormatError) {
      description.configuration = try configuration(metadata, tensors: description.tensors)
      try refuseFactors(description)
    } catch {
      guard description.tensors.isEmpty, error.kind == .unsupported else { throw error }
    }
    try description.validate(path: files[0].path)
    return description
  }

  private static func configuration(
    _ metadata: GGUFMetadataReader, tensors: [TensorRecord]
  ) throws(FormatError) -> DecoderConfiguration {
    let key = "general.architecture"
    guard let name = try metadata.string(key) else {
      throw metadata.error(.unsupported, key: key, "metadata key \"\(key)\" is missing")
    }
    let architecture = try Architectures.named(name, path: metadata.file.path)
    return try architecture.configuration(
      gguf: GGUFHyperparameters(metadata, tensors: tensors, architecture: name))
  }
}

extension GGUF {
  /// Throws if products with a tensor are to be multiplied by a factor that stands in a tensor of its own, as
  /// converters of NVFP4 files write it: `blk.0.ffn_up.scale` beside `blk.0.ffn_up.weight`.
  private static func refuseFactors(_ description: ModelDescription) throws(FormatError) {
    let factors = description.tensors.filter { $0.name.hasSuffix(".scale") }
    guard !factors.isEmpty else { return }
    let names = Set(description.tensors.map(\.name))
    for factor in factors {
      let weight = String(factor.name.dropLast(".scale".count)) + ".weight"
      guard names.contains(weight) else { continue }
      throw FormatError(
        .unsupported, at: factor.offset, path: description.files[factor.fileIndex],
        "tensor \"\(factor.name)\" scales what \"\(weight)\" gives, which is not supported; a file"
          + " of another type than NVFP4 has no such factors")
    }
  }
}

extension TensorRecord {
  fileprivate init(_ info: GGUFTensorInfo, fileIndex: Int) {
    // A third dimension counts matrices, which lie one after the other.
    let count = info.dimensions.dropFirst(2).reduce(1, *)
    self.init(
      name: info.name, type: info.type, columnCount: info.columnCount, rowCount: info.rowCount,
      layout: .rowMajor, fileIndex: fileIndex, offset: info.offset, byteCount: info.byteCount,
      stack: count > 1 ? ExpertStack(count: count, byteStride: info.byteCount / count) : nil)
  }
}
