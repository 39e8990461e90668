/// The files of one device.
struct FileSet: Sendable {
  let files: [OpenFile]

  /// Alignment of direct I/O: no drive in use has larger logical blocks.
  static let directAlignment = 4096

  /// What reads must be aligned to, fixed at opening.
  let alignment: Int

  /// Opens every path for reading, past the page cache where `direct` is set.
  init(paths: [String], direct: Bool, hooks: DeviceHooks) throws(BlockIOError) {
    precondition(!paths.isEmpty, "a device has at least one file")
    var files: [OpenFile] = []
    for path in paths {
      files.append(
        try OpenFile(path: path, direct: direct, refusal: hooks.directOpenErrno))
    }
    self.files = files
    alignment = files.contains(where: \.isDirect) ? Self.directAlignment : 1
  }

  subscript(index: Int) -> OpenFile { files[index] }

  var byteCounts: [Int] { files.map(\.byteCount) }

  func checkUnchanged() throws(BlockIOError) {
    for file in files { try file.checkUnchanged() }
  }

  func identities() throws(BlockIOError) -> [FileIdentity] {
    var identities: [FileIdentity] = []
    for file in files { identities.append(try file.currentIdentity()) }
    return identities
  }

  /// One line where O_DIRECT was refused.
  var notes: [String] {
    let refused = files.filter(\.directWasRefused)
    guard let first = refused.first else { return [] }
    let others = refused.count > 1 ? " and \(refused.count - 1) more" : ""
    return ["O_DIRECT is refused for '\(first.path)'\(others): reading through the page cache"]
  }

  /// Traps if the caller violated the contract of `submit`.
  func checkContract(_ request: ReadRequest, inFlight: Int, capacity: Int) {
    precondition(inFlight < capacity, "more reads submitted than the device's capacity")
    precondition(files.indices.contains(request.fileIndex), "no such file in this device")
    let address = Int(bitPattern: request.destination.baseAddress)
    precondition(
      request.offset >= 0 && !request.destination.isEmpty
        && (request.offset | request.destination.count | address) % alignment == 0,
      "a read is empty or not aligned to \(alignment) bytes")
  }

  /// The error of a failed transfer.
  func error(_ transfer: Transfer, _ reason: BlockIOError.Reason) -> BlockIOError {
    BlockIOError(
      .read, path: files[transfer.request.fileIndex].path, offset: transfer.nextOffset,
      byteCount: transfer.nextBytes.count, reason: reason, tag: transfer.request.tag)
  }
}
