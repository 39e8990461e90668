import TensorBasics

extension GGUF {
  /// Says what a GGUF file holds, copying all of it out of the header.
  ///
  /// A file without tensors (a vocabulary alone) may be of any architecture; its configuration is nil
  /// where it is not a supported one. A tokenizer that is not supported leaves
  /// ``ModelDescription/tokenizer`` nil and its reason in ``ModelDescription/tokenizerProblem``.
  ///
  /// - Parameter header: The bytes `file` was parsed from.
  /// - Throws: ``FormatError`` for an architecture, hyper-parameter or set of tensors that is not
  ///   supported or contradicts itself.
  public static func describe(
    _ file: GGUFFile, header: UnsafeRawBufferPointer
  ) throws(FormatError) -> ModelDescription {
    let metadata = GGUFMetadataReader(file, header: header)
    var description = ModelDescription(
      chatTemplate: try metadata.string("tokenizer.chat_template"),
      name: try metadata.string("general.name"), files: [file.path],
      tensors: file.tensors.map(TensorRecord.init))
    do throws(FormatError) {
      description.tokenizer = try tokenizer(metadata)
      try description.tokenizer?.validate(path: file.path)
    } catch {
      guard error.kind == .unsupported else { throw error }
      description.tokenizerProblem = error
    }
    do throws(FormatError) {
      description.configuration = try configuration(metadata)
    } catch {
      guard file.tensors.isEmpty, error.kind == .unsupported else { throw error }
    }
    try description.validate(path: file.path)
    return description
  }

  private static func configuration(
    _ metadata: GGUFMetadataReader
  ) throws(FormatError) -> DecoderConfiguration {
    let key = "general.architecture"
    guard let name = try metadata.string(key) else {
      throw metadata.error(.unsupported, key: key, "metadata key \"\(key)\" is missing")
    }
    let architecture = try Architectures.named(name, path: metadata.file.path)
    return try architecture.configuration(
      gguf: GGUFHyperparameters(metadata, architecture: name))
  }
}

extension TensorRecord {
  fileprivate init(_ info: GGUFTensorInfo) {
    // A third dimension counts matrices, which lie one after the other.
    let count = info.dimensions.dropFirst(2).reduce(1, *)
    self.init(
      name: info.name, type: info.type, columnCount: info.columnCount, rowCount: info.rowCount,
      layout: .rowMajor, fileIndex: 0, offset: info.offset, byteCount: info.byteCount,
      stack: count > 1 ? ExpertStack(count: count, byteStride: info.byteCount / count) : nil)
  }
}
