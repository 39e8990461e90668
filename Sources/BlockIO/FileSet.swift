/// The files of one device, which may come and go.
struct FileSet: Sendable {
  /// By their index; nil = closed.
  private var files: [OpenFile?] = []
  /// Files that the device was opened with, which stay open.
  let firstCount: Int
  private let isDirect: Bool
  private let refusal: Int32

  /// Alignment of direct I/O: no drive in use has larger logical blocks.
  static let directAlignment = 4096

  /// What reads must be aligned to, fixed at opening.
  let alignment: Int

  /// Opens every path for reading, past the page cache where `direct` is set.
  init(paths: [String], direct: Bool, hooks: DeviceHooks) throws(BlockIOError) {
    for path in paths {
      files.append(
        try OpenFile(path: path, direct: direct, refusal: hooks.directOpenErrno))
    }
    let isAligned = paths.isEmpty ? direct : files.contains { $0?.isDirect == true }
    alignment = isAligned ? Self.directAlignment : 1
    firstCount = paths.count
    (isDirect, refusal) = (isAligned, hooks.directOpenErrno)
  }

  /// Opens another file, past the page cache where reads are aligned for that.
  ///
  /// - Returns: its index: the lowest that no file has.
  mutating func open(path: String) throws(BlockIOError) -> Int {
    let file = try OpenFile(path: path, direct: isDirect, refusal: refusal)
    guard let index = files[firstCount...].firstIndex(where: { $0 == nil }) else {
      files.append(file)
      return files.count - 1
    }
    files[index] = file
    return index
  }

  mutating func close(_ index: Int) {
    precondition(index >= firstCount, "what a device was opened with stays open")
    files[index] = nil
  }

  subscript(index: Int) -> OpenFile {
    guard let file = files[index] else { preconditionFailure("file \(index) was closed") }
    return file
  }

  private var openFiles: some Sequence<OpenFile> { files.lazy.compactMap { $0 } }
  var descriptors: [Int32] { openFiles.map { $0.descriptor.rawValue } }
  var byteCounts: [Int] { files.map { $0?.byteCount ?? 0 } }

  func checkUnchanged() throws(BlockIOError) {
    for file in openFiles { try file.checkUnchanged() }
  }

  func identities() throws(BlockIOError) -> [FileIdentity] {
    var identities: [FileIdentity] = []
    for file in openFiles { identities.append(try file.currentIdentity()) }
    return identities
  }

  /// One line where O_DIRECT was refused.
  var notes: [String] {
    let refused = openFiles.filter(\.directWasRefused)
    guard let first = refused.first else { return [] }
    let others = refused.count > 1 ? " and \(refused.count - 1) more" : ""
    return ["O_DIRECT is refused for '\(first.path)'\(others): reading through the page cache"]
  }

  /// Traps if the caller violated the contract of `submit`.
  func checkContract(_ request: ReadRequest, inFlight: Int, capacity: Int) {
    precondition(inFlight < capacity, "more reads submitted than the device's capacity")
    precondition(
      files.indices.contains(request.fileIndex) && files[request.fileIndex] != nil,
      "no such file in this device")
    let address = Int(bitPattern: request.destination.baseAddress)
    precondition(
      request.offset >= 0 && !request.destination.isEmpty
        && (request.offset | request.destination.count | address) % alignment == 0,
      "a read is empty or not aligned to \(alignment) bytes")
  }

  /// The error of a failed transfer.
  func error(_ transfer: Transfer, _ reason: BlockIOError.Reason) -> BlockIOError {
    BlockIOError(
      .read, path: transfer.file.path, offset: transfer.nextOffset,
      byteCount: transfer.nextBytes.count, reason: reason, tag: transfer.request.tag)
  }
}
