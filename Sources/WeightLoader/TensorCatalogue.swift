import BlockIO
import ModelFormat
import TensorBasics

/// What the header of a file of tensors says, whatever its format and whether or not it is a known model.
struct TensorCatalogue {
  let kind: ModelFile.Kind
  let tensors: [LoadableTensor]
  let metadata: [MetadataEntry]
  /// The image's description, whose extents have checksums; nil for other files.
  let image: ModelDescription?
  /// Lengths of the files that the tensors were checked against.
  let fileByteCounts: [Int]
  private let storage: ModelStorage

  /// Reads the header of a GGUF file, flash image or safetensors file, or of all safetensors files of a
  /// folder.
  init(
    _ path: String, mirrors: [String], records: WeightRecords = .standard
  ) throws(LoaderError) {
    if let folder = ModelFolder(path) {
      var storage = try ModelStorage(tensorsOf: folder)
      try storage.add(mirrors: mirrors, headerByteCount: 0, weights: nil, records: records)
      (tensors, metadata, fileByteCounts) = try Self.safetensors(storage.files)
      self.storage = storage
      (kind, image) = (.safetensors, nil)
      return
    }
    var storage = try ModelStorage(path)
    let prefix = try FileHeader.prefix(path, byteCount: 16)
    let found = ModelFile.recognise(prefix.bytes)
    switch found {
    case .flashImage, .stripeMember:
      let description = try storage.describe()
      tensors = description.tensors.map(LoadableTensor.init)
      metadata = []
      image = description
      kind = .flashImage
    case .gguf:
      let file = try FileHeader.parse(path, Self.gguf)
      tensors = file.tensors
      metadata = file.metadata
      (kind, image) = (.gguf, nil)
    case .safetensors:
      let file = try FileHeader.parse(path, Safetensors.parse)
      tensors = file.tensors.map { LoadableTensor($0, fileIndex: 0) }
      metadata = MetadataEntry.entries(file, fileIndex: 0)
      (kind, image) = (.safetensors, nil)
    case .unknown:
      throw .format(
        FormatError(
          .unrecognised, at: 0, path: path,
          "neither a GGUF file, a flash image nor a safetensors file"))
    }
    let regions = tensors.sorted { $0.offset < $1.offset }.map {
      Extent(fileIndex: 0, offset: $0.offset, byteCount: $0.byteCount)
    }
    try storage.add(
      mirrors: mirrors, headerByteCount: regions.first?.offset ?? prefix.fileByteCount,
      weights: image == nil ? WeightChecksums(regions: regions) : nil, records: records)
    fileByteCounts = found == .stripeMember ? [] : [prefix.fileByteCount]
    self.storage = storage
  }

  /// Paths of the files that hold the tensors; a striped image is the one that its user named.
  var files: [String] { storage.mapping == nil ? storage.files : [storage.path] }

  /// Opens the files for reading.
  ///
  /// - Throws: ``LoaderError/format(_:)`` if one is not as long as when its header was read.
  func openDevice(
    backend: StorageBackend, queueDepth: Int
  ) throws(LoaderError) -> any BlockDevice {
    let device: any BlockDevice
    do { device = try storage.openDevice(backend: backend, queueDepth: queueDepth) } catch {
      throw .io(error)
    }
    for (index, byteCount) in fileByteCounts.enumerated()
    where device.fileByteCounts[index] != byteCount {
      throw .format(
        FormatError(
          .truncated, path: storage.files[index], "the file changed while it was being opened"))
    }
    return device
  }

  private static func safetensors(
    _ paths: [String]
  ) throws(LoaderError) -> ([LoadableTensor], [MetadataEntry], fileByteCounts: [Int]) {
    var tensors: [LoadableTensor] = []
    var metadata: [MetadataEntry] = []
    var fileByteCounts: [Int] = []
    for (index, path) in paths.enumerated() {
      let file = try FileHeader.parse(path, Safetensors.parse)
      tensors += file.tensors.map { LoadableTensor($0, fileIndex: index) }
      metadata += MetadataEntry.entries(file, fileIndex: index)
      fileByteCounts.append(file.fileByteCount)
    }
    return (tensors, metadata, fileByteCounts)
  }

  /// What a GGUF header says of tensors and under its keys.
  private static func gguf(
    _ prefix: UnsafeRawBufferPointer, fileByteCount: Int, path: String
  ) throws(FormatError) -> ParseProgress<(tensors: [LoadableTensor], metadata: [MetadataEntry])> {
    switch try GGUF.parse(prefix, fileByteCount: fileByteCount, path: path) {
    case .needsMore(let byteCount): return .needsMore(atLeast: byteCount)
    case .complete(let file):
      return .complete(
        (file.tensors.map(LoadableTensor.init), MetadataEntry.entries(file, header: prefix)))
    }
  }
}
