import CommandLineSupport
import ModelFormat
import TensorBasics
import WeightLoader

/// What a model file holds, as `--json` says it.
struct DescriptionReport {
  private let source: ModelSource

  init(_ source: ModelSource) { self.source = source }

  /// Writes the members of the report.
  func write(to json: inout JSONWriter) {
    let description = source.description
    json.text("sourceIdentity", description.sourceIdentity?.description)
    if let shape = description.configuration {
      write(shape, to: &json)
    } else {
      json.null("architecture")
    }
    if let tokenizer = description.tokenizer {
      json.object("tokenizer") { json in
        json.text("model", tokenizer.model.rawValue)
        json.text("preTokenizer", tokenizer.preTokenizer.map { "\($0)" })
        json.number("tokens", tokenizer.tokens.count)
      }
    } else {
      json.null("tokenizer")
    }
    json.text("tokenizerProblem", VocabularyProblem.of(description))
    if let neurons = description.neurons { write(neurons, to: &json) }
    json.array("notes", of: description.notes) { $0.text(nil, $1) }
    json.array("files", of: Self.files(of: source)) { list, file in
      list.object { json in
        json.text("path", file.path)
        json.number("bytes", file.byteCount)
        json.number("tensors", file.tensorCount)
      }
    }
    json.number("parameters", description.parameterCount)
    json.object("tensors") { json in
      json.number("count", description.storedTensors.count)
      json.number("bytes", description.storedByteCount)
      json.array("classes", of: classes(description)) { list, item in
        list.object { json in
          json.text("type", item.type.name)
          json.text("layout", item.layout.rawValue)
          json.number("bytes", item.byteCount)
        }
      }
    }
  }

  /// The files that the model lies in, with what each holds; a striped image counts as one.
  static func files(
    of source: ModelSource
  ) -> [(path: String, byteCount: Int, tensorCount: Int)] {
    var tensorCounts = [Int](repeating: 0, count: source.description.files.count)
    for tensor in source.description.storedTensors { tensorCounts[tensor.fileIndex] += 1 }
    return zip(source.description.files, zip(source.device.fileByteCounts, tensorCounts)).map {
      ($0, $1.0, $1.1)
    }
  }

  private func write(_ shape: DecoderConfiguration, to json: inout JSONWriter) {
    json.object("architecture") { json in
      json.text("name", "\(shape.architecture)")
      json.number("layers", shape.layerCount)
      json.number("hiddenSize", shape.hiddenSize)
      json.number("feedForwardLength", shape.feedForwardLength)
      json.number("queryHeads", shape.queryHeadCount)
      json.number("keyValueHeads", shape.keyValueHeadCount)
      json.number("headDim", shape.headDim)
      json.number("vocabulary", shape.vocabularyCount)
      json.number("contextLength", shape.contextLength)
      json.flag("tiesOutput", shape.tiesOutput)
      guard let experts = shape.experts else { return }
      let bundle = source.description.tensors.first(where: \.isBundled)?.stack
      json.object("experts") { json in
        json.number("count", experts.expertCount)
        json.number("perToken", experts.expertsPerToken)
        json.number("feedForwardLength", experts.feedForwardLength)
        json.number("sharedFeedForwardLength", experts.sharedFeedForwardLength)
        json.number("bundleBytes", bundle?.byteStride)
      }
    }
  }

  private func write(_ neurons: NeuronLayout, to json: inout JSONWriter) {
    json.object("neurons") { json in
      json.number("perBundle", neurons.layers.first?.neuronsPerBundle)
      json.number("bundleBytes", neurons.layers.first?.byteStride)
      json.number("bundles", neurons.layers.reduce(0) { $0 + $1.bundleCount })
      json.flag("hasPredictor", neurons.predictor != nil)
      json.flag("hasThresholds", neurons.thresholds != nil)
    }
  }

  /// Bytes of each type and layout, the most first.
  private func classes(
    _ description: ModelDescription
  ) -> [(type: ElementType, layout: RowLayout, byteCount: Int)] {
    var classes: [(type: ElementType, layout: RowLayout, byteCount: Int)] = []
    for tensor in description.storedTensors {
      let index = classes.firstIndex { $0.type == tensor.type && $0.layout == tensor.layout }
      if let index {
        classes[index].byteCount += tensor.byteCount
      } else {
        classes.append((tensor.type, tensor.layout, tensor.byteCount))
      }
    }
    return classes.sorted { $0.byteCount > $1.byteCount }
  }
}
