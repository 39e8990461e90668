public import BlockIO
public import ModelFormat

/// An open model: what its files say, and the device that reads them.
public final class ModelSource {
  /// The path the user gave.
  public let path: String
  public let description: ModelDescription
  public let device: any BlockDevice
  /// Every file that is read: shards, members of a split model or a stripe, copies of a mirror.
  public let files: [String]
  /// Where checksums of weights are remembered.
  public let records: WeightRecords
  /// Of copies that were compared when they were opened.
  let identityOfCopies: ModelIdentity?

  /// What reads of weights are aligned to: what the device needs, and for an image at least 4096 bytes.
  ///
  /// Reads of an image are then whole extents with their padding, whatever the device.
  public var readAlignment: Int {
    description.extents.isEmpty
      ? device.alignment : max(device.alignment, FlashImage.alignment)
  }

  /// The file with most of the weights, which the drive is measured with.
  public var largestFile: String {
    var byteCounts = [Int](repeating: 0, count: description.files.count)
    for tensor in description.storedTensors { byteCounts[tensor.fileIndex] += tensor.byteCount }
    let largest = byteCounts.indices.max { byteCounts[$0] < byteCounts[$1] }
    return largest.map { description.files[$0] } ?? path
  }

  /// For tests and embedders that bring their own device; its files are `description.files`.
  public init(
    path: String, description: ModelDescription, device: any BlockDevice,
    records: WeightRecords = .standard
  ) {
    files = description.files
    self.path = path
    self.description = description
    self.device = device
    self.records = records
    identityOfCopies = nil
  }

  private init(
    _ storage: ModelStorage, _ description: ModelDescription, _ device: any BlockDevice,
    _ records: WeightRecords, identityOfCopies: ModelIdentity?
  ) {
    path = storage.path
    files = storage.files
    self.description = description
    self.device = device
    self.records = records
    self.identityOfCopies = identityOfCopies
  }

  /// Reads in flight of a model in bundles of neurons: a layer's, so that the drive always has the next.
  private static let leastNeuronDepth = 512

  /// Opens a GGUF model, which may be split into several files, a flash image, which may be striped, or a
  /// Hugging Face folder.
  ///
  /// - Parameters:
  ///   - path: the model's file, of a split model or a striped image any member; or the folder.
  ///   - mirrors: whole copies of the model, of a split one any member of each; each read is shared among all
  ///     of them. Copies of a model without checksums are read whole once, and what they are is remembered.
  ///   - backend: how to read; `.auto` takes the fastest that works here.
  ///   - queueDepth: most reads in flight.
  ///   - records: where checksums of weights are remembered.
  /// - Throws: ``LoaderError/io(_:)``, ``LoaderError/format(_:)`` (also for copies and members that do
  ///   not belong together) or ``LoaderError/missingFile(path:_:)``.
  public static func open(
    _ path: String, mirrors: [String] = [], backend: StorageBackend = .auto, queueDepth: Int = 64,
    records: WeightRecords = .standard
  ) throws(LoaderError) -> ModelSource {
    var storage = try ModelStorage(path)
    let description = try storage.describe()
    return try open(
      storage, description, mirrors: mirrors, backend: backend, queueDepth: queueDepth,
      records: records)
  }

  /// Opens a model whose headers have been read.
  fileprivate static func open(
    _ storage: ModelStorage, _ description: ModelDescription, mirrors: [String] = [],
    backend: StorageBackend, queueDepth: Int = 64, records: WeightRecords = .standard
  ) throws(LoaderError) -> ModelSource {
    var storage = storage
    try ZeroTail.check(description)
    let weights =
      description.extents.isEmpty ? WeightChecksums(description.storedTensors) : nil
    let copied = try storage.add(
      mirrors: mirrors, headerByteCounts: description.headerByteCounts,
      weights: weights, records: records
    ) { description.identity(checksums: $0.known) }
    let identity = copied.flatMap { description.identity(checksums: $0.known) }
    do {
      // Neurons of a layer are many small reads, asked for together.
      let depth = description.neurons == nil ? queueDepth : max(queueDepth, leastNeuronDepth)
      let device = try storage.openDevice(backend: backend, queueDepth: depth)
      return ModelSource(storage, description, device, records, identityOfCopies: identity)
    } catch { throw .io(error) }
  }

  /// Reads a model's description without opening its data; of a split model or a striped image from any
  /// member.
  public static func describe(_ path: String) throws(LoaderError) -> ModelDescription {
    var storage = try ModelStorage(path)
    return try storage.describe()
  }
}

extension ModelSource {
  /// Its first layer that predicts further tokens, as a model that is read by the same device; nil where there is none that can
  /// draft.
  package var predictor: ModelSource? {
    description.predictor.map {
      ModelSource(path: path, description: $0, device: device, records: records)
    }
  }

  /// Reads as much of a model's description as can be understood.
  ///
  /// `ModelDescription.problems` says what cannot, and would be refused by ``describe(_:)``.
  ///
  /// - Throws: ``LoaderError`` for a file whose header cannot be read at all.
  public static func survey(_ path: String) throws(LoaderError) -> ModelDescription {
    try ModelSurvey(path).description
  }
}

/// A model whose headers were read once, whether or not it can be run.
package struct ModelSurvey {
  /// As much as can be understood; `problems` says what cannot.
  package let description: ModelDescription
  private let storage: ModelStorage

  /// - Throws: ``LoaderError`` for a file whose header cannot be read at all.
  package init(_ path: String) throws(LoaderError) {
    var storage = try ModelStorage(path)
    description = try storage.describe(collectingProblems: true)
    self.storage = storage
  }

  /// All tensors of the files, also of types that models do not compute with.
  package var tensors: [LoadableTensor] { storage.tensors }
  /// The files that ``LoadableTensor/fileIndex`` counts.
  package var files: [String] { storage.logicalFiles }
  /// Their lengths; none of a striped image.
  package var fileByteCounts: [Int] { storage.fileByteCounts }

  /// Opens the model, which must have no problems.
  ///
  /// - Throws: as ``ModelSource/open(_:mirrors:backend:queueDepth:records:)``.
  package func open(backend: StorageBackend) throws(LoaderError) -> ModelSource {
    try ModelSource.open(storage, description, backend: backend)
  }
}

extension ModelDescription {
  /// Bytes before the first tensor of each file; of one without tensors all.
  fileprivate var headerByteCounts: [Int] {
    var byteCounts = [Int](repeating: .max, count: files.count)
    for tensor in storedTensors {
      byteCounts[tensor.fileIndex] = min(byteCounts[tensor.fileIndex], tensor.offset)
    }
    return byteCounts
  }
}
