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
  private var storage: ModelStorage

  /// Reads the header of a GGUF file, flash image or safetensors file, of all members of a split GGUF model, or
  /// of all safetensors files of a folder.
  init(
    _ path: String, mirrors: [String], records: WeightRecords = .standard
  ) throws(LoaderError) {
    if let folder = ModelFolder(path) {
      var storage = try ModelStorage(tensorsOf: folder)
      try storage.add(mirrors: mirrors, headerByteCounts: [], weights: nil, records: records)
      (tensors, metadata, fileByteCounts) = try Self.safetensors(storage.files)
      self.storage = storage
      (kind, image) = (.safetensors, nil)
      return
    }
    var storage = try ModelStorage(path)
    let prefix = try FileHeader.prefix(path, byteCount: FileDiagnosis.prefixByteCount)
    switch ModelFile.recognise(prefix.bytes) {
    case .flashImage, .stripeMember:
      let description = try storage.describe()
      tensors = description.tensors.map(LoadableTensor.init)
      metadata = []
      image = description
      kind = .flashImage
      fileByteCounts = storage.mapping == nil ? [prefix.fileByteCount] : []
    case .gguf:
      let model = try storage.readGGUF(MetadataEntry.entries)
      tensors = model.files.enumerated().flatMap { index, file in
        file.tensors.map { LoadableTensor($0, fileIndex: index) }
      }
      metadata = model.contents.flatMap(\.self)
      (kind, image) = (.gguf, nil)
      fileByteCounts = model.files.map(\.fileByteCount)
    case .safetensors:
      (tensors, metadata, fileByteCounts) = try Self.safetensors([path])
      (kind, image) = (.safetensors, nil)
    case .unknown:
      let error = FormatError(
        .unrecognised, at: 0, path: path,
        "neither a GGUF file, a flash image nor a safetensors file")
      throw .format(FileDiagnosis.explaining(error, prefix.bytes, path: path))
    }
    self.storage = storage
    try addMirrors(mirrors, records)
  }

  private mutating func addMirrors(
    _ mirrors: [String], _ records: WeightRecords
  ) throws(LoaderError) {
    guard !mirrors.isEmpty else { return }
    let regions = tensors.map {
      Extent(fileIndex: $0.fileIndex, offset: $0.offset, byteCount: $0.byteCount)
    }.sorted { ($0.fileIndex, $0.offset) < ($1.fileIndex, $1.offset) }
    let headerByteCounts = storage.logicalFiles.indices.map { index in
      regions.first { $0.fileIndex == index }?.offset ?? Int.max
    }
    try storage.add(
      mirrors: mirrors, headerByteCounts: headerByteCounts,
      weights: image == nil ? WeightChecksums(regions: regions) : nil, records: records)
  }

  /// Paths of the files that hold the tensors; a striped image is the one that its user named.
  var files: [String] { storage.logicalFiles }

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
}
