import BlockIO
import ModelFormat
import TensorBasics

/// The files that hold one model's bytes, and which bytes lie where.
struct ModelStorage {
  /// The path the user gave.
  let path: String
  /// All that is read: the model's files in order, of a striped image its members, of a mirrored model first
  /// the original's files and then those of each copy.
  private(set) var files: [String]
  /// The model's files as `fileIndex` counts them: without copies; of a striped image the one that its user
  /// named.
  private(set) var logicalFiles: [String]
  /// How reads are split among ``files``; nil where they are not.
  private(set) var mapping: ReadMapping?
  /// Whether ``files`` are the safetensors files of a folder.
  private let isFolder: Bool
  private let isGGUF: Bool
  /// Of a folder, what says which model it holds; nil where only its tensors are wanted.
  private let huggingFace: HuggingFaceFolder?
  /// All tensors of the files, of whatever type, once the model is described.
  private(set) var tensors: [LoadableTensor] = []
  /// The lengths of the files then; none of a striped image.
  private(set) var fileByteCounts: [Int] = []

  /// The safetensors files of a folder, whatever else it holds.
  ///
  /// - Throws: ``LoaderError/missingFile(path:_:)`` for a folder without any.
  init(tensorsOf folder: ModelFolder) throws(LoaderError) {
    path = folder.path
    files = try folder.safetensors()
    guard !files.isEmpty else {
      throw .missingFile(
        path: path, try folder.otherModels() ?? "this folder holds no safetensors file")
    }
    logicalFiles = files
    (isFolder, isGGUF, huggingFace) = (true, false, nil)
  }

  /// Finds the files of the model at `path`; the other members of a split GGUF model are found when
  /// their headers are read.
  init(_ path: String) throws(LoaderError) {
    self.path = path
    if let folder = ModelFolder(path) {
      let model = try HuggingFaceFolder(folder)
      files = model.shards
      logicalFiles = files
      (isFolder, isGGUF, huggingFace) = (true, false, model)
      return
    }
    (isFolder, huggingFace) = (false, nil)
    files = [path]
    logicalFiles = files
    let prefix = try FileHeader.prefix(path, byteCount: StripeMember.headerByteCount)
    let kind = ModelFile.recognise(prefix.bytes)
    isGGUF = kind == .gguf
    guard kind == .stripeMember else { return }
    let set = try StripeSet(member: try StripeSet.header(prefix, path: path), at: path)
    files = set.paths
    mapping = .stripe(set.layout)
  }

  func openDevice(
    backend: StorageBackend, queueDepth: Int
  ) throws(BlockIOError) -> any BlockDevice {
    guard let mapping else {
      return try BlockIO.openDevice(paths: files, backend: backend, queueDepth: queueDepth)
    }
    return try BlockIO.openDevice(
      paths: files, mapping: mapping, backend: backend, queueDepth: queueDepth)
  }

  /// Parses the model's headers, reading as much of them as it takes.
  ///
  /// - Parameter collectsProblems: whether to go on after what keeps a GGUF model or a folder from being run.
  mutating func describe(
    collectingProblems collectsProblems: Bool = false
  ) throws(LoaderError) -> ModelDescription {
    if let huggingFace {
      let (model, files) = try huggingFace.describe(collectingProblems: collectsProblems)
      tensors = files.enumerated().flatMap { index, file in
        file.tensors.map { LoadableTensor($0, fileIndex: index) }
      }
      fileByteCounts = files.map(\.fileByteCount)
      return model
    }
    if isGGUF { return try describeGGUF(collectsProblems) }
    let description = try describeImage()
    tensors = description.tensors.map(LoadableTensor.init)
    return description
  }

  private mutating func describeImage() throws(LoaderError) -> ModelDescription {
    guard let mapping else {
      var byteCount = 0
      let description = try FileHeader.parse(path) {
        (prefix, fileByteCount, path) throws(FormatError) in
        byteCount = fileByteCount
        return try ModelFile.describe(prefix, fileByteCount: fileByteCount, path: path)
      }
      fileByteCounts = [byteCount]
      return description
    }
    var prefixByteCount = ModelFile.firstReadByteCount
    while true {
      switch try describe(mapping, prefixByteCount: prefixByteCount) {
      case .complete(let description): return description
      case .needsMore(let byteCount): prefixByteCount = max(byteCount, 2 * prefixByteCount)
      }
    }
  }

  /// Reads the header of a GGUF file, or finds all members of a split model and reads theirs.
  mutating func readGGUF<Content>(
    _ read: (GGUFFile, _ header: UnsafeRawBufferPointer) throws(FormatError) -> Content
  ) throws(LoaderError) -> GGUFModel<Content> {
    let model = try GGUFModel(path, read)
    files = model.files.map(\.path)
    logicalFiles = files
    return model
  }

  /// Describes a GGUF file, or all members of a split model.
  private mutating func describeGGUF(
    _ collectsProblems: Bool
  ) throws(LoaderError) -> ModelDescription {
    let model = try readGGUF { (file, header) throws(FormatError) -> ModelDescription? in
      guard file.split?.count ?? 1 == 1 else { return nil }
      return try GGUF.describe([file], header: header, collectingProblems: collectsProblems)
    }
    tensors = model.files.enumerated().flatMap { index, file in
      file.tensors.map { LoadableTensor($0, fileIndex: index) }
    }
    fileByteCounts = model.files.map(\.fileByteCount)
    if let description = model.contents[0] { return description }
    // What the first header says of the model depends on the tensors of all members.
    return try FileHeader.parse(files[0]) { (prefix, fileByteCount, path) throws(FormatError) in
      switch try GGUF.parse(prefix, fileByteCount: fileByteCount, path: path) {
      case .needsMore(let byteCount):
        return ParseProgress<ModelDescription>.needsMore(atLeast: byteCount)
      case .complete(let first):
        try model.files[0].split?.check(first, is: 0, withMemberAt: self.path)
        return .complete(
          try GGUF.describe(
            [first] + model.files.dropFirst(), header: prefix,
            collectingProblems: collectsProblems))
      }
    }
  }

  private func describe(
    _ mapping: ReadMapping, prefixByteCount: Int
  ) throws(LoaderError) -> ParseProgress<ModelDescription> {
    let imageByteCount = mapping.byteCounts[0]
    let byteCount = min(prefixByteCount, imageByteCount)
    let buffer: AlignedBuffer
    do { buffer = try AlignedBuffer(byteCount: byteCount) } catch { throw .allocation(error) }
    let bytes = UnsafeMutableRawBufferPointer(rebasing: buffer.bytes[..<byteCount])
    do {
      let device = try openDevice(backend: .mmap, queueDepth: 1)
      _ = try device.readNow(fileIndex: 0, offset: 0, into: bytes)
    } catch { throw .io(error) }
    do {
      return try ModelFile.describe(
        UnsafeRawBufferPointer(bytes), fileByteCount: imageByteCount, path: path)
    } catch { throw .format(error) }
  }

  /// Adds whole copies of the model, whose files must have the lengths and the headers of the original's. For
  /// an image all checksums lie there; of other files all weights are compared as well.
  ///
  /// - Parameters:
  ///   - mirrors: a file of each copy, of a split model any member.
  ///   - headerByteCounts: bytes before the first tensor of each file.
  ///   - weights: where they lie, in a file without checksums; nil for an image.
  ///   - records: where checksums of weights are remembered.
  ///   - identity: the model's, where the file describes one.
  /// - Returns: the weights' checksums where copies were compared by them.
  @discardableResult
  mutating func add(
    mirrors: [String], headerByteCounts: [Int], weights: WeightChecksums?,
    records: WeightRecords, identity: (WeightChecksums) -> ModelIdentity? = { _ in nil }
  ) throws(LoaderError) -> WeightChecksums? {
    guard !mirrors.isEmpty else { return nil }
    guard mapping == nil, !isFolder else {
      let what = isFolder ? "a folder" : "a striped image"
      throw .format(
        FormatError(
          .unsupported, path: path, "\(what) cannot be mirrored; copies must be whole files"))
    }
    var copies = [files]
    for mirror in mirrors { copies.append(try copy(at: mirror)) }
    var byteCounts: [Int] = []
    for (index, file) in files.enumerated() {
      byteCounts.append(
        try Self.byteCount(
          of: file, headerByteCount: headerByteCounts[index],
          copies: copies.dropFirst().map { $0[index] }))
    }
    files = copies.flatMap(\.self)
    mapping = .mirror(copyCount: copies.count, byteCounts: byteCounts)
    guard let weights else { return nil }
    return try WeightChecksums.ofCopies(
      copies, parts: weights, records: records, identity: identity)
  }

  /// The files of the copy that `mirror` is, or is a member of.
  private func copy(at mirror: String) throws(LoaderError) -> [String] {
    guard files.count > 1 else { return [mirror] }
    let copy = try GGUFModel(mirror) { _, _ in }.files.map(\.path)
    guard copy.count == files.count else {
      throw .format(
        FormatError(
          .malformed, path: mirror,
          "not a copy of \(path): a model in \(copy.count) files and not \(files.count)"))
    }
    return copy
  }

  /// The length of `original`, which all copies have, with its header.
  private static func byteCount(
    of original: String, headerByteCount: Int, copies: [String]
  ) throws(LoaderError) -> Int {
    let header = try FileHeader.prefix(original, byteCount: headerByteCount)
    for path in copies {
      let copy = try FileHeader.prefix(path, byteCount: headerByteCount)
      guard copy.fileByteCount == header.fileByteCount else {
        throw .format(
          FormatError(
            .malformed, path: path,
            "not a copy of \(original): it has \(copy.fileByteCount) bytes and not "
              + "\(header.fileByteCount)"))
      }
      if let offset = firstDifference(copy.bytes, header.bytes) {
        throw .format(
          FormatError(
            .malformed, at: offset, path: path,
            "not a copy of \(original): its header differs from here on"))
      }
    }
    return header.fileByteCount
  }

  private static func firstDifference(
    _ left: UnsafeRawBufferPointer, _ right: UnsafeRawBufferPointer
  ) -> Int? {
    zip(left, right).enumerated().first { $0.element.0 != $0.element.1 }?.offset
  }
}
