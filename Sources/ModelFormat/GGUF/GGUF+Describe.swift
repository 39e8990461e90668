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
  ///   - collectsProblems: Whether what keeps the model from being run goes to
  ///     ``ModelDescription/problems`` and is not thrown.
  /// - Throws: ``FormatError`` for an architecture, hyper-parameter or set of tensors that is not
  ///   supported or contradicts itself, and for members that do not belong together.
  public static func describe(
    _ files: [GGUFFile], header: UnsafeRawBufferPointer,
    collectingProblems collectsProblems: Bool = false
  ) throws(FormatError) -> ModelDescription {
    precondition(!files.isEmpty, "a model is in a file")
    try checkTensors(of: files)
    let metadata = GGUFMetadataReader(files[0], header: header)
    var description = ModelDescription(
      chatTemplate: try metadata.string("tokenizer.chat_template"),
      name: try metadata.label("general.name"), files: files.map(\.path))
    if let names = try metadata.strings("tokenizer.chat_templates") {
      for index in 0..<min(names.count, 64) {
        let name = String(decoding: names[index], as: UTF8.self)
        description.otherTemplates[name] = try metadata.string("tokenizer.chat_template.\(name)")
      }
    }
    var problems = ProblemCollector(collectsProblems)
    description.tensors = try tensors(of: files, &problems)
    description.ignoreInputFactors()
    do throws(FormatError) {
      description.tokenizer = try tokenizer(metadata)
      try description.tokenizer?.validate(path: files[0].path)
    } catch {
      if error.kind == .unsupported {
        description.tokenizerProblem = error
      } else {
        try problems.note(error)
      }
    }
    do throws(FormatError) {
      try describeDecoder(metadata, &description)
      // Without all tensors the rest cannot be judged.
      if problems.problems.isEmpty { try description.validate(path: files[0].path) }
    } catch {
      let holdsVocabularyOnly = files.allSatisfy(\.tensors.isEmpty) && error.kind == .unsupported
      if !holdsVocabularyOnly { try problems.note(error) }
    }
    description.problems = problems.problems
    return description
  }

  /// The tensors of types that models compute with.
  private static func tensors(
    of files: [GGUFFile], _ problems: inout ProblemCollector
  ) throws(FormatError) -> [TensorRecord] {
    var tensors: [TensorRecord] = []
    var refused: [(error: FormatError, typeNumber: UInt32, count: Int)] = []
    for (index, file) in files.enumerated() {
      for info in file.tensors {
        do throws(FormatError) {
          tensors.append(try record(info, of: file, fileIndex: index))
        } catch {
          guard problems.collects else { throw error }
          if let known = refused.firstIndex(where: { $0.typeNumber == info.typeNumber }) {
            refused[known].count += 1
          } else {
            refused.append((error, info.typeNumber, 1))
          }
        }
      }
    }
    for (error, _, count) in refused {
      var error = error
      if count > 1 { error.message += "; so have \(count - 1) more" }
      try problems.note(error)
    }
    return tensors
  }

  /// From 1 on; 0 is none.
  private static let poolingNames = ["mean", "cls", "last", "rank"]

  /// Adds the configuration, and what follows from it for the tensors.
  private static func describeDecoder(
    _ metadata: GGUFMetadataReader, _ description: inout ModelDescription
  ) throws(FormatError) {
    let key = "general.architecture"
    guard let name = try metadata.string(key) else {
      throw metadata.error(.unsupported, key: key, "metadata key \"\(key)\" is missing")
    }
    let layerTensors = description.tensors.compactMap { tensor -> String? in
      let words = tensor.name.split(separator: ".")
      return words.count >= 4 && words[0] == "blk" ? String(words[2]) : nil
    }
    let architecture = try Architectures.named(
      name, layerTensors: Set(layerTensors), path: metadata.file.path)
    let parameters = GGUFHyperparameters(
      metadata, tensors: description.tensors, prefix: name, architecture: architecture.name)
    let configuration = try architecture.configuration(gguf: parameters)
    description.configuration = configuration
    if let number = try metadata.integer("\(name).pooling_type"),
      poolingNames.indices.contains(number - 1)
    {
      description.pooling = poolingNames[number - 1]
    }
    guard !description.tensors.isEmpty else { return }
    let predictionLayers =
      architecture.skipsPredictionLayers
      ? description.takePredictionLayers(after: configuration.layerCount) : []
    let origins = StoredTensorNames(path: metadata.file.path, files: description.files)
    func prepared(
      _ tensors: [TensorRecord], _ configuration: DecoderConfiguration
    ) throws(FormatError) -> [TensorRecord] {
      try FusedTensors.split(
        tensors.map { rename($0, architecture.ggufLayerNames) }, configuration, origins: origins)
    }
    description.tensors = try prepared(description.tensors, configuration)
    let scaling = try parameters.ropeScaling(
      base: configuration.ropeBase, dimensionCount: configuration.ropeDimensionCount)
    let derived = architecture.derivedValues(configuration)
      .merging(scaling.factors) { first, _ in first }
    for (name, values) in derived.sorted(by: { $0.key < $1.key })
    where !parameters.hasTensor(name) {
      description.append(name, values: values)
    }
    description.note(predictionLayers: predictionLayers, path: metadata.file.path, prepared)
  }
}

extension GGUF {
  /// A layer's tensor under the name that it has here; biases of experts and taps of channels, a row for each, as the vectors
  /// that they are.
  private static func rename(_ tensor: TensorRecord, _ names: [String: String]) -> TensorRecord {
    var tensor = tensor
    let words = tensor.name.split(separator: ".", omittingEmptySubsequences: false)
    // Numbers of a scan's heads are stored as rows of one.
    if words.count >= 3, words[0] == "blk", ["ssm_a", "ssm_d", "ssm_norm"].contains(words[2]),
      tensor.stack == nil, !tensor.type.isQuantised
    {
      (tensor.columnCount, tensor.rowCount) = (tensor.columnCount * tensor.rowCount, 1)
    }
    if let name = names[tensor.name] { tensor.name = name }
    // Files of Falcon-H1 have no ending there.
    if words.count == 3, words[0] == "blk", words[2] == "ffn_norm" { tensor.name += ".weight" }
    guard words.count >= 4, words[0] == "blk", let ending = words.last else { return tensor }
    let own = words[2..<words.count - 1].joined(separator: ".")
    if let name = names[own] { tensor.name = "blk.\(words[1]).\(name).\(ending)" }
    let isFlat =
      own.hasSuffix("_exps") && ending == "bias" || own == "ssm_conv1d" || own == "shortconv.conv"
    if isFlat, tensor.stack == nil,
      !tensor.type.isQuantised
    {
      (tensor.columnCount, tensor.rowCount) = (tensor.columnCount * tensor.rowCount, 1)
    }
    return tensor
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

extension GGUF {
  /// - Throws: ``FormatError`` of kind `unsupported` for a type that models do not compute with.
  private static func record(
    _ info: GGUFTensorInfo, of file: GGUFFile, fileIndex: Int
  ) throws(FormatError) -> TensorRecord {
    guard let type = info.type.elementType else {
      let number = info.typeNumber
      let name = info.type.name
      let known = name.hasSuffix("\(number)") ? name : "type \(name) (\(number))"
      let origin = number >= 97 ? ", which only forks of llama.cpp write" : ""
      let supported = ElementType.allCases.map(\.name).joined(separator: ", ")
      throw FormatError(
        .unsupported, at: info.infoOffset, path: file.path,
        "tensor \"\(info.name)\" has \(known)\(origin); supported are \(supported)")
    }
    // A third dimension counts matrices, which lie one after the other.
    let count = info.dimensions.dropFirst(2).reduce(1, *)
    return TensorRecord(
      name: info.name, type: type, columnCount: info.columnCount, rowCount: info.rowCount,
      layout: .rowMajor, fileIndex: fileIndex, offset: info.offset, byteCount: info.byteCount,
      stack: count > 1 ? ExpertStack(count: count, byteStride: info.byteCount / count) : nil)
  }
}
