import BlockIO
import ModelFormat
import TensorBasics

/// The files that hold one model's bytes, and which bytes lie where.
struct ModelStorage {
  /// The path the user gave.
  let path: String
  /// Members of a stripe or copies of a mirror in order, or the one file.
  private(set) var files: [String]
  /// How reads are split among ``files``; nil where they are not.
  private(set) var mapping: ReadMapping?
  /// Whether ``files`` are the safetensors files of a folder.
  private let isFolder: Bool
  /// Of a folder, what says which model it holds; nil where only its tensors are wanted.
  private let huggingFace: HuggingFaceFolder?

  /// The safetensors files of a folder, whatever else it holds.
  ///
  /// - Throws: ``LoaderError/missingFile(path:_:)`` for a folder without any.
  init(tensorsOf folder: ModelFolder) throws(LoaderError) {
    path = folder.path
    files = try folder.safetensors()
    guard !files.isEmpty else {
      throw .missingFile(path: path, "this folder holds no safetensors file")
    }
    (isFolder, huggingFace) = (true, nil)
  }

  /// Finds the files of the model at `path`.
  init(_ path: String) throws(LoaderError) {
    self.path = path
    if let folder = ModelFolder(path) {
      let model = try HuggingFaceFolder(folder)
      files = model.shards
      (isFolder, huggingFace) = (true, model)
      return
    }
    (isFolder, huggingFace) = (false, nil)
    files = [path]
    let prefix = try FileHeader.prefix(path, byteCount: StripeMember.headerByteCount)
    guard ModelFile.recognise(prefix.bytes) == .stripeMember else { return }
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

  /// Parses the model's header, reading as much of it as it takes.
  func describe() throws(LoaderError) -> ModelDescription {
    if let huggingFace { return try huggingFace.describe() }
    guard let mapping else { return try FileHeader.parse(path, ModelFile.describe) }
    var prefixByteCount = ModelFile.firstReadByteCount
    while true {
      switch try describe(mapping, prefixByteCount: prefixByteCount) {
      case .complete(let description): return description
      case .needsMore(let byteCount): prefixByteCount = max(byteCount, 2 * prefixByteCount)
      }
    }
  }

  private func describe(
    _ mapping: ReadMapping, prefixByteCount: Int
  ) throws(LoaderError) -> ParseProgress<ModelDescription> {
    let byteCount = min(prefixByteCount, mapping.byteCount)
    let buffer: AlignedBuffer
    do { buffer = try AlignedBuffer(byteCount: byteCount) } catch { throw .allocation(error) }
    let bytes = UnsafeMutableRawBufferPointer(rebasing: buffer.bytes[..<byteCount])
    do {
      let device = try openDevice(backend: .mmap, queueDepth: 1)
      _ = try device.readNow(fileIndex: 0, offset: 0, into: bytes)
    } catch { throw .io(error) }
    do {
      return try ModelFile.describe(
        UnsafeRawBufferPointer(bytes), fileByteCount: mapping.byteCount, path: path)
    } catch { throw .format(error) }
  }

  /// Adds whole copies of the model, each of which must have its length and its first `headerByteCount`
  /// bytes. For an image all checksums lie there; of other files all weights are compared as well.
  ///
  /// - Parameters:
  ///   - weights: where they lie, in a file without checksums; nil for an image.
  ///   - records: where checksums of weights are remembered.
  ///   - identity: the model's, where the file describes one.
  /// - Returns: the weights' checksums where copies were compared by them.
  @discardableResult
  mutating func add(
    mirrors: [String], headerByteCount: Int, weights: WeightChecksums?,
    records: WeightRecords, identity: (WeightChecksums) -> ModelIdentity? = { _ in nil }
  ) throws(LoaderError) -> WeightChecksums? {
    guard !mirrors.isEmpty else { return nil }
    guard mapping == nil, !isFolder else {
      let what = isFolder ? "a folder" : "a striped image"
      throw .format(
        FormatError(
          .unsupported, path: path, "\(what) cannot be mirrored; copies must be whole files"))
    }
    let original = try FileHeader.prefix(path, byteCount: headerByteCount)
    for mirror in mirrors {
      let copy = try FileHeader.prefix(mirror, byteCount: headerByteCount)
      guard copy.fileByteCount == original.fileByteCount else {
        throw .format(
          FormatError(
            .malformed, path: mirror,
            "not a copy of \(path): it has \(copy.fileByteCount) bytes and not "
              + "\(original.fileByteCount)"))
      }
      if let offset = Self.firstDifference(copy.bytes, original.bytes) {
        throw .format(
          FormatError(
            .malformed, at: offset, path: mirror,
            "not a copy of \(path): its header differs from here on"))
      }
    }
    files += mirrors
    mapping = .mirror(copyCount: files.count, byteCount: original.fileByteCount)
    guard let weights else { return nil }
    return try WeightChecksums.ofCopies(
      files, parts: weights, records: records, identity: identity)
  }

  private static func firstDifference(
    _ left: UnsafeRawBufferPointer, _ right: UnsafeRawBufferPointer
  ) -> Int? {
    zip(left, right).enumerated().first { $0.element.0 != $0.element.1 }?.offset
  }
}
