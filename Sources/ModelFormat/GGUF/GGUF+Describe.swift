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
    if let names = try metadata.strings("tokenizer.chat_templates") {
      for index in 0..<min(names.count, 64) {
        let name = String(decoding: names[index], as: UTF8.self)
        description.otherTemplates[name] = try metadata.string("tokenizer.chat_template.\(name)")
      }
    }
    for (index, file) in files.enumerated() {
      description.tensors += file.tensors.map { TensorRecord($0, fileIndex: index) }
    }
    description.ignoreInputFactors()
    do throws(FormatError) {
      description.tokenizer = try tokenizer(metadata)
      try description.tokenizer?.validate(path: files[0].path)
    } catch {
      guard error.kind == .unsupported else { throw error }
      description.tokenizerProblem = error
    }
    do throws(FormatError) {
      description.configuration = try configuration(metadata, tensors: description.tensors)
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

extension ModelDescription {
  /// Leaves out what would scale activations before a product (`blk.0.ffn_up.input_scale`): they have scales of their own
  /// here, one for each 32, so nothing is lost.
  fileprivate mutating func ignoreInputFactors() {
    let suffix = ".input_scale"
    let weights = Set(tensors.lazy.filter { $0.name.hasSuffix(".weight") }.map(\.name))
    let count = tensors.count
    tensors.removeAll { tensor in
      tensor.name.hasSuffix(suffix)
        && weights.contains(tensor.name.dropLast(suffix.count) + ".weight")
    }
    guard tensors.count < count else { return }
    notes.append(
      "\(count - tensors.count) tensors \"*\(suffix)\" are ignored: activations have scales of their own here"
    )
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
