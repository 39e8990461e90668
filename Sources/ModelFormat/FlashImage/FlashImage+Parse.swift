import TensorBasics

extension FlashImage {
  /// Parses everything before an image's data: prologue, header and tokenizer section.
  ///
  /// All checksums but those of extents are verified, and everything in `docs/format.md`, section 8.
  ///
  /// - Parameters:
  ///   - prefix: The file's first bytes; only read during the call.
  ///   - fileByteCount: Length of the whole file.
  ///   - path: The file's name, for errors and ``ModelDescription/files``.
  /// - Returns: The model, or how long a prefix is needed at least.
  /// - Throws: ``FormatError``.
  public static func parse(
    _ prefix: UnsafeRawBufferPointer, fileByteCount: Int, path: String
  ) throws(FormatError) -> ParseProgress<ModelDescription> {
    try parseProgress { () throws(ParseInterruption) in
      var cursor = HeaderCursor(
        prefix, fileByteCount: fileByteCount,
        headerByteLimit: headerByteLimit + tokenizerByteLimit + 4 * alignment, path: path)
      let prologue = try FlashImagePrologue(&cursor)
      let range = try cursor.skip(UInt64(prologue.headerByteCount), "the header")
      guard Checksum.of(cursor.slice(range)) == prologue.headerChecksum else {
        throw cursor.error(
          .checksumMismatch, at: range.lowerBound, "the header is damaged (checksum)")
      }
      let header: FlashImageHeader
      do throws(FormatError) {
        header = try FlashImageHeader(cursor.slice(range), at: range.lowerBound, path: path)
        try header.tokenizer?.validate(fileByteCount: fileByteCount, path: path)
      } catch { throw .failed(error) }
      let section = try skipTokenizer(header, &cursor)
      do throws(FormatError) {
        return try description(header, section: section, cursor: cursor)
      } catch { throw .failed(error) }
    }
  }

  /// Steps to and over the tokenizer section.
  private static func skipTokenizer(
    _ header: FlashImageHeader, _ cursor: inout HeaderCursor
  ) throws(ParseInterruption) -> UnsafeRawBufferPointer? {
    guard let tokenizer = header.tokenizer else { return nil }
    guard tokenizer.offset >= cursor.offset else {
      throw cursor.error(
        .malformed, at: tokenizer.offset, "the tokenizer section overlaps the header")
    }
    _ = try cursor.skip(UInt64(tokenizer.offset - cursor.offset), "the header's padding")
    return cursor.slice(try cursor.skip(UInt64(tokenizer.byteCount), "the tokenizer section"))
  }

  private static func description(
    _ header: FlashImageHeader, section: UnsafeRawBufferPointer?, cursor: HeaderCursor
  ) throws(FormatError) -> ModelDescription {
    let path = cursor.path
    var description = ModelDescription(
      configuration: header.configuration, chatTemplate: header.chatTemplate, name: header.name,
      files: [path])
    description.otherTemplates = header.otherTemplates ?? [:]
    description.pooling = header.pooling
    description.sourceIdentity = header.sourceIdentity.map { ModelIdentity($0.value) }
    description.neurons = try header.neurons?.layout(path: path)
    if let section { description.tokenizer = try header.tokenizer?.definition(section, path: path) }
    for tensor in header.tensors {
      guard let type = ElementType(name: tensor.type) else {
        throw FormatError(
          .unsupported, path: path,
          "tensor \"\(tensor.name)\" has type \(tensor.type), which is not supported")
      }
      description.tensors.append(
        TensorRecord(
          name: tensor.name, type: type, columnCount: tensor.columnCount,
          rowCount: tensor.rowCount, layout: tensor.layout, fileIndex: 0, offset: tensor.offset,
          byteCount: tensor.byteCount, stack: tensor.stack))
    }
    description.extents = header.extents.map {
      ExtentRecord(offset: $0.offset, byteCount: $0.byteCount, checksum: $0.checksum.value)
    }
    try description.validate(path: path)
    guard header.dataOffset % alignment == 0,
      (cursor.offset...cursor.fileByteCount).contains(header.dataOffset)
    else {
      throw FormatError(
        .malformed, path: path, "the data cannot begin at byte \(header.dataOffset)")
    }
    try FlashImageGeometry(
      description: description, data: header.dataOffset..<cursor.fileByteCount, path: path
    ).validate()
    return description
  }
}
