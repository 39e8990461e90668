public import BlockIO
import Glibc
import ModelFormat
import TensorBasics

/// How often each expert of a model was used, kept from one run to the next in a small file.
///
/// The file is `MODEL.experts` beside the model or, where that cannot be written, one in the user's
/// cache folder. A file that is damaged, of another version or of another model is treated as if it
/// were not there. All numbers are little-endian:
///
/// | offset | bytes | content |
/// |---|---|---|
/// | 0 | 8 | `FLASHHOT` in ASCII |
/// | 8 | 4 | version: 2 |
/// | 12 | 4 | layers |
/// | 16 | 4 | experts of a layer |
/// | 20 | 4 | zero |
/// | 24 | 8 | the model: its identity, or a number of the very file while that is not known |
/// | 32 | 4 × layers × experts | hotness, f32, 0...1 |
/// | | 8 | XXH3-64 over everything before |
public struct ExpertUsage: Sendable {
  /// Where the file is looked for, and is written if that is possible, in this order.
  public let paths: [String]
  public let layerCount: Int
  /// Experts of a layer.
  public let expertCount: Int
  /// Numbers that stand for the model, the one to write first.
  private let models: [UInt64]

  private let modelPath: String

  private static let magic = Array("FLASHHOT".utf8)
  private static let version: UInt32 = 2
  private static let headerByteCount = 32

  /// - Parameters:
  ///   - modelPath: the model's file; of a striped image the member that was opened.
  ///   - references: what stands for the model.
  ///   - cacheFolder: the other place; nil if there is none.
  public init(
    modelPath: String, _ references: ModelReferences, layerCount: Int, expertCount: Int,
    cacheFolder: String? = CacheFolder.standard("experts")
  ) {
    precondition(layerCount >= 0 && expertCount >= 0, "\(layerCount) × \(expertCount) bundles")
    self.modelPath = modelPath
    self.layerCount = layerCount
    self.expertCount = expertCount
    let models = references.all.map { reference in
      switch reference {
      case .content(let identity): identity.number
      case .files(let number): number
      }
    }
    self.models = models
    let others = cacheFolder.map { folder in
      models.map { "\(folder)/\(ModelIdentity.text(of: $0))" }
    }
    paths = [modelPath + ".experts"] + (others ?? [])
  }

  /// What was remembered, one number a bundle; nil if nothing is.
  ///
  /// - Parameter note: is told in one line why a file that is there was ignored.
  public func load(note: (String) -> Void = { _ in }) -> [Float]? {
    for path in paths {
      let byteCount = self.byteCount
      do throws(BlockIOError) {
        // One byte more shows a file that is too long.
        let file = try FilePrefix(path: path, byteCount: byteCount + 1)
        if let problem = problem(of: file.bytes) {
          note("\(path) is ignored: \(problem)")
          continue
        }
        return values(file.bytes)
      } catch {
        if !error.isMissingFile { note("the expert history cannot be read: \(error)") }
      }
    }
    return nil
  }

  /// Keeps `values`, one a bundle and each 0...1, in place of older ones.
  ///
  /// - Returns: The path of the file.
  /// - Throws: `BlockIOError` of the last place where none can be written.
  @discardableResult
  public func save(_ values: [Float]) throws(BlockIOError) -> String {
    precondition(values.count == layerCount * expertCount, "\(values.count) values")
    var bytes = Self.magic
    bytes.reserveCapacity(byteCount)
    for number in [Self.version, UInt32(layerCount), UInt32(expertCount), 0] {
      bytes.appendLittleEndian(number)
    }
    bytes.appendLittleEndian(models[0])
    for value in values {
      bytes.appendLittleEndian((value.isFinite ? min(max(value, 0), 1) : 0).bitPattern)
    }
    do throws(BlockIOError) {
      try write(bytes, to: paths[0])
      // An older file elsewhere would come back if this one went.
      for path in paths.dropFirst() { SystemCalls.remove(path) }
      return paths[0]
    } catch {
      guard paths.count > 1 else { throw error }
      let path = paths[1]
      let end = path.utf8.lastIndex(of: UInt8(ascii: "/")) ?? path.startIndex
      try CacheFolder.make(String(path[..<end]))
      try write(bytes, to: path)
      return path
    }
  }

  private func write(_ bytes: [UInt8], to path: String) throws(BlockIOError) {
    try SmallFile.write(
      bytes, to: OutputFile(path: path, reserving: byteCount, inputs: [modelPath]))
  }

  // MARK: Details

  private var byteCount: Int {
    Self.headerByteCount + 4 * layerCount * expertCount + SmallFile.checksumByteCount
  }

  /// Why a file's bytes are not to be used; nil if they are.
  private func problem(of bytes: UnsafeRawBufferPointer) -> String? {
    guard bytes.starts(with: Self.magic) else { return "it is not an expert history" }
    guard bytes.count >= Self.headerByteCount else { return "it is truncated" }
    let version = SmallFile.integer(bytes, at: 8, as: UInt32.self)
    guard version == Self.version else { return "it is of version \(version)" }
    guard SmallFile.integer(bytes, at: 12, as: UInt32.self) == UInt32(layerCount),
      SmallFile.integer(bytes, at: 16, as: UInt32.self) == UInt32(expertCount),
      models.contains(SmallFile.integer(bytes, at: 24, as: UInt64.self))
    else { return "it is of another model" }
    guard bytes.count == byteCount, SmallFile.isIntact(bytes),
      values(bytes).allSatisfy({ (0...1).contains($0) })
    else { return "it is damaged" }
    return nil
  }

  private func values(_ bytes: UnsafeRawBufferPointer) -> [Float] {
    (0..<layerCount * expertCount).map { index in
      Float(
        bitPattern: SmallFile.integer(
          bytes, at: Self.headerByteCount + 4 * index, as: UInt32.self))
    }
  }
}
