public import BlockIO
public import ModelFormat
import TensorBasics
import WeightLoader

/// An open selector file: predictors or thresholds that a training tool made for one model.
public struct SelectorFile {
  /// The file and its predictor's tensors.
  let source: ModelSource
  /// What it says, with the thresholds' values.
  public let selector: NeuronSelection

  /// Opens the safetensors file at `path`, which must be for such a decoder.
  ///
  /// - Throws: ``ConversionError`` if it is damaged or not for this model's shape.
  public init(
    _ path: String, for configuration: DecoderConfiguration, backend: StorageBackend = .auto
  ) throws(ConversionError) {
    let file: SafetensorsFile
    do { file = try FileHeader.parse(path, Safetensors.parse) } catch { throw .loader(error) }
    var selector: NeuronSelection
    do {
      selector = try NeuronSelection(file, for: configuration)
    } catch { throw .format(error) }
    var description = ModelDescription(files: [path])
    description.tensors = selector.tensors + selector.thresholdTensors
    do {
      let device = try openDevice(paths: [path], backend: backend, queueDepth: 16)
      source = ModelSource(path: path, description: description, device: device)
    } catch { throw .io(error) }
    let indexes = Array(selector.tensors.count..<description.tensors.count)
    var values = [Float](repeating: 0, count: indexes.count)
    do {
      try source.readTensors(indexes) { index, address in
        values[index] = Float(
          bitPattern: UInt32(littleEndian: address.loadUnaligned(as: UInt32.self)))
      }
    } catch { throw .loader(error) }
    selector.thresholds?.values = values
    self.selector = selector
  }
}
