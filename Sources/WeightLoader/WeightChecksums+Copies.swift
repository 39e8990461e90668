import BlockIO
import ModelFormat
import TensorBasics

extension WeightChecksums {
  /// Compares whole copies of a model without checksums of its own, part by part.
  ///
  /// What is remembered of a copy is not read again; what is read is remembered. Takes two MiB of memory.
  ///
  /// - Parameters:
  ///   - copies: the model's files, and those of each copy.
  ///   - parts: where the weights of each lie; nothing is known of them.
  ///   - identity: the model's, where the file describes one.
  /// - Returns: the checksums that all have.
  /// - Throws: ``LoaderError/format(_:)`` with the place where a copy differs; ``LoaderError/io(_:)``.
  static func ofCopies(
    _ copies: [[String]], parts: WeightChecksums, records: WeightRecords,
    identity: (WeightChecksums) -> ModelIdentity?
  ) throws(LoaderError) -> WeightChecksums {
    var first: WeightChecksums?
    for paths in copies {
      let checksums = try ofCopy(paths, parts, records, identity)
      if let first,
        let index = checksums.known.indices.first(where: {
          checksums.known[$0] != first.known[$0]
        })
      {
        let part = parts.parts[index]
        throw .format(
          FormatError(
            .malformed, at: part.offset, path: paths[part.fileIndex],
            "not a copy of \(copies[0][part.fileIndex]): the \(ByteCount(part.byteCount)) of weights from "
              + "here on differ"))
      }
      first = first ?? checksums
    }
    return first ?? parts
  }

  private static func ofCopy(
    _ paths: [String], _ parts: WeightChecksums, _ records: WeightRecords,
    _ identity: (WeightChecksums) -> ModelIdentity?
  ) throws(LoaderError) -> WeightChecksums {
    var checksums = parts
    let layout = parts.layoutChecksum
    let device: any BlockDevice
    let files: [FileIdentity]
    do throws(BlockIOError) {
      device = try openDevice(paths: paths, backend: .pread, queueDepth: 2)
      files = try device.settledFileIdentities()
    } catch { throw .io(error) }
    checksums.resume(records.load(files, layout: layout))
    guard !checksums.isComplete else { return checksums }
    try checksums.read(device, paths: paths, slotCount: 2) { true }
    do throws(BlockIOError) {
      if !files.isEmpty, try device.fileIdentities() != files {
        throw BlockIOError(.inspect, path: paths[0], reason: .modified)
      }
    } catch { throw .io(error) }
    // If the folder cannot be written to, the next run reads again; nothing else is lost.
    try? records.save(
      checksums.known, of: files, layout: layout, identity: identity(checksums))
    return checksums
  }
}
