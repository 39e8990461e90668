import BlockIO
import CommandLineSupport
import ModelFormat
import TensorBasics
import WeightLoader

/// What a model file holds, whether or not it can be run.
struct DescriptionReport {
  let path: String
  let description: ModelDescription
  /// All tensors of the files, of whatever type.
  let contents: ModelSurvey
  /// The open model; nil of one that cannot be run.
  let source: ModelSource?
  /// What is wrong with the vocabulary; nil if nothing is, or there is none.
  let vocabularyProblem: String?

  init(_ path: String, backend: StorageBackend) throws {
    self.path = path
    contents = try ModelSurvey(path)
    description = contents.description
    source = description.problems.isEmpty ? try contents.open(backend: backend) : nil
    vocabularyProblem = VocabularyProblem.of(description)
  }

  var summary: ModelSummary {
    source.map { ModelSummary(path, $0) } ?? ModelSummary(path, description)
  }

  /// What would be refused, and why.
  var problems: [String] {
    var problems = description.problems.map(\.description)
    if let vocabularyProblem {
      problems.append(vocabularyProblem)
    } else if description.tokenizer == nil {
      problems.append(
        "\(path): it holds no vocabulary: only token ids (flashinfer-run --tokens) can be given to it"
      )
    }
    if let reason = description.needsConversion { problems.append("\(path): \(reason)") }
    return problems
  }

  /// The tokens that end an answer.
  var stopTokens: [(id: Int, text: String)] {
    guard let tokenizer = description.tokenizer else { return [] }
    var ids: [Int] = []
    for case let id? in [tokenizer.eosToken, tokenizer.eotToken] + tokenizer.stopTokens
    where !ids.contains(id) && id < tokenizer.tokens.count { ids.append(id) }
    return ids.map { ($0, String(decoding: tokenizer.tokens[$0], as: UTF8.self)) }
  }

  /// The bundles of an image's experts.
  var bundle: ExpertStack? {
    description.extents.isEmpty ? nil : description.tensors.first(where: \.isBundled)?.stack
  }

  /// Writes the members of the report.
  func write(to json: inout JSONWriter) {
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
        json.array("stopTokens", of: stopTokens) { list, token in
          list.object { json in
            json.number("id", token.id)
            json.text("text", token.text)
          }
        }
      }
    } else {
      json.null("tokenizer")
    }
    json.text("tokenizerProblem", vocabularyProblem)
    json.text("template", description.chatTemplate)
    json.array("problems", of: problems) { $0.text(nil, $1) }
    if let neurons = description.neurons { write(neurons, to: &json) }
    json.array("notes", of: description.notes) { $0.text(nil, $1) }
    json.array("files", of: files) { list, file in
      list.object { json in
        json.text("path", file.path)
        json.number("bytes", file.byteCount)
        json.number("tensors", file.tensorCount)
      }
    }
    json.number("parameters", description.parameterCount)
    json.object("tensors") { json in
      json.number("count", contents.tensors.count)
      json.number("bytes", contents.tensors.reduce(0) { $0 + $1.byteCount })
      json.array("classes", of: classes) { list, item in
        list.object { json in
          json.text("type", item.type)
          json.text("layout", item.layout.rawValue)
          json.number("count", item.count)
          json.number("bytes", item.byteCount)
          json.flag("isSupported", item.isSupported)
        }
      }
    }
  }

  /// The files that the model lies in, with what each holds; a striped image counts as one.
  var files: [(path: String, byteCount: Int, tensorCount: Int)] {
    var tensorCounts = [Int](repeating: 0, count: contents.files.count)
    for tensor in contents.tensors { tensorCounts[tensor.fileIndex] += 1 }
    let byteCounts = source?.device.fileByteCounts ?? contents.fileByteCounts
    return zip(contents.files, zip(byteCounts, tensorCounts)).map { ($0, $1.0, $1.1) }
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

  /// Tensors and bytes of each type and layout, the most bytes first.
  var classes: [TypeClass] {
    var classes: [TypeClass] = []
    for tensor in contents.tensors {
      let index = classes.firstIndex {
        $0.type == tensor.typeName && $0.layout == tensor.layout
      }
      if let index {
        classes[index].count += 1
        classes[index].byteCount += tensor.byteCount
      } else {
        classes.append(TypeClass(tensor))
      }
    }
    return classes.sorted { ($1.byteCount, $0.type) < ($0.byteCount, $1.type) }
  }

  /// The tensors of one type.
  struct TypeClass {
    let type: String
    let layout: RowLayout
    /// Whether models compute with it.
    let isSupported: Bool
    var count = 1
    var byteCount: Int

    init(_ tensor: LoadableTensor) {
      type = tensor.typeName
      layout = tensor.layout
      isSupported = tensor.type.elementType != nil
      byteCount = tensor.byteCount
    }
  }
}
