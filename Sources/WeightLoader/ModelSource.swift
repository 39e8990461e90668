public import BlockIO
public import ModelFormat
import TensorBasics

/// An open model: what its files say, and the device that reads them.
public final class ModelSource {
  /// The path the user gave.
  public let path: String
  public let description: ModelDescription
  public let device: any BlockDevice

  /// For tests and embedders that bring their own device; its files are `description.files`.
  public init(path: String, description: ModelDescription, device: any BlockDevice) {
    self.path = path
    self.description = description
    self.device = device
  }

  /// Opens a GGUF file or a flash image.
  ///
  /// - Parameters:
  ///   - backend: how to read; `.auto` takes the fastest that works here.
  ///   - queueDepth: most reads in flight.
  /// - Throws: ``LoaderError/io(_:)`` or ``LoaderError/format(_:)``.
  public static func open(
    _ path: String, backend: StorageBackend = .auto, queueDepth: Int = 64
  ) throws(LoaderError) -> ModelSource {
    let description = try describe(path)
    do {
      let device = try openDevice(
        paths: description.files, backend: backend, queueDepth: queueDepth)
      return ModelSource(path: path, description: description, device: device)
    } catch { throw .io(error) }
  }

  /// Reads a model's description without opening its data.
  public static func describe(_ path: String) throws(LoaderError) -> ModelDescription {
    var prefixByteCount = 1 << 20
    while true {
      let prefix: FilePrefix
      do { prefix = try FilePrefix(path: path, byteCount: prefixByteCount) } catch {
        throw .io(error)
      }
      do {
        switch try ModelFile.describe(
          prefix.bytes, fileByteCount: prefix.fileByteCount, path: path)
        {
        case .complete(let description): return description
        case .needsMore(let byteCount): prefixByteCount = max(byteCount, 2 * prefixByteCount)
        }
      } catch { throw .format(error) }
    }
  }
}
