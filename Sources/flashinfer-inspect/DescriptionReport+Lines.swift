import CommandLineSupport
import ModelFormat
import TensorBasics
import Tokenization
import WeightLoader

/// What a model file holds, in lines for people.
extension DescriptionReport {
  func printLines() throws {
    if let name = description.name {
      Terminal.print("name: \(name.escapingControlCharacters)\n")
    }
    if let shape = description.configuration { printShape(shape) }
    if description.parameterCount > 0 {
      Terminal.print("parameters: \(Self.inMillions(description.parameterCount))\n")
    }
    if description.needsConversion == nil, let type = description.commonMatrixType {
      Terminal.print("quantisation: \(type.isQuantised ? type.name : "none, \(type.name)")\n")
    }
    printTokenizer()
    if let source, description.configuration != nil { try printIdentity(source) }
    if let neurons = description.neurons { Terminal.print("neurons: \(text(of: neurons))\n") }
    for note in description.notes { Terminal.print("note: \(note)\n") }
    for item in classes {
      Terminal.print(
        "\(item.type) \(item.layout.rawValue): \(Self.tensors(item.count)), "
          + "\(ByteCount(item.byteCount))\(item.isSupported ? "" : ", not supported")\n")
    }
    let byteCount = contents.tensors.reduce(0) { $0 + $1.byteCount }
    Terminal.print("tensors: \(contents.tensors.count), \(ByteCount(byteCount))\n")
    if contents.files.count > 1 {
      for file in files {
        Terminal.print(
          "file: \(Progress.name(file.path)), \(ByteCount(file.byteCount)), "
            + "\(Self.tensors(file.tensorCount))\n")
      }
    }
    for problem in problems {
      Terminal.print("refused: \(problem.escapingControlCharacters)\n")
    }
  }

  private static func tensors(_ count: Int) -> String {
    "\(count) \(count == 1 ? "tensor" : "tensors")"
  }

  private func printShape(_ shape: DecoderConfiguration) {
    Terminal.print(
      """
      architecture: \(shape.architecture)
      layers: \(shape.layerCount), width \(shape.hiddenSize), \
      FFN \(shape.feedForwardLength)
      heads: \(heads(shape))
      vocabulary: \(shape.vocabularyCount)\(shape.tiesOutput ? ", tied to the output" : "")
      context: \(shape.contextLength)

      """)
    if let experts = shape.experts { Terminal.print("experts: \(text(of: experts))\n") }
  }

  private func heads(_ shape: DecoderConfiguration) -> String {
    shape.windows.isEmpty
      ? "none: no layer attends"
      : "\(shape.queryHeadCount) queries, \(shape.keyValueHeadCount) keys and values, "
        + "of \(shape.headDim)"
  }

  private func printTokenizer() {
    if let tokenizer = description.tokenizer {
      Terminal.print(
        "tokenizer: \(tokenizer.model.rawValue)"
          + (tokenizer.preTokenizer.map { ", \($0)" } ?? "")
          + ", \(tokenizer.tokens.count) tokens\n")
      let stops = stopTokens.map { "\($0.id) \($0.text.escapingControlCharacters)" }
      if !stops.isEmpty { Terminal.print("stop tokens: \(stops.joined(separator: ", "))\n") }
    }
    if let vocabularyProblem {
      Terminal.print("tokenizer: cannot be used: \(vocabularyProblem)\n")
    }
    if let template = description.chatTemplate {
      Terminal.print("chat template: \(Self.text(ofTemplate: template))\n")
    }
  }

  private static func inMillions(_ count: Int) -> String {
    let (unit, name) = count >= 1_000_000_000 ? (1e9, "billion") : (1e6, "million")
    return "\((Double(count) / unit * 100).rounded() / 100) \(name)"
  }

  /// What a chat template was found to take and to need.
  private static func text(ofTemplate source: String) -> String {
    let template: ChatTemplate
    do { template = try ChatTemplate(source) } catch { return "\(error)" }
    var takes = [template.takesSystemMessage ? "a system message" : "no system message"]
    takes.append(template.takesTools ? "tools" : "no tools")
    if template.switchesThinking { takes.append("thinking on or off") }
    var needs: [String] = []
    if template.needs.argumentsAsText { needs.append("arguments of calls are given as text") }
    if template.needs.contentAsParts { needs.append("content is given as parts") }
    if template.needs.joinsParts { needs.append("parts of a message's content are joined") }
    let end = needs.isEmpty ? "" : "; " + needs.joined(separator: ", ")
    return "takes " + takes.joined(separator: ", ") + end
  }

  /// What the model is, or why that is not known; and what stands for its very file.
  private func printIdentity(_ source: ModelSource) throws {
    let references = try source.references()
    switch references?.best {
    case .content(let identity):
      Terminal.print("identity: \(identity), of the checksums of all weights\n")
    case .files(let number):
      Terminal.print(
        "identity: not known before all weights are read (--verify); as a file it is "
          + "\(ModelIdentity.text(of: number))\n")
    case nil: Terminal.print("identity: not known before all weights are read (--verify)\n")
    }
    if let identity = description.sourceIdentity {
      Terminal.print("converted from: \(identity)\n")
    }
  }

  /// The bundles of neurons in a line, and what chooses among them.
  private func text(of neurons: NeuronLayout) -> String {
    guard let bundles = neurons.layers.first else { return "none" }
    var text =
      "in bundles of \(bundles.neuronsPerBundle), \(ByteCount(bundles.byteStride)) each, "
      + "\(neurons.layers.reduce(0) { $0 + $1.bundleCount }) bundles"
    if let predictor = neurons.predictor {
      let recall = predictor.recalls.reduce(0, +) / Double(max(1, predictor.recalls.count))
      text += ", predictor of recall \((recall * 1000).rounded() / 1000)"
    }
    if let thresholds = neurons.thresholds {
      text += ", thresholds that keep \((thresholds.keptFraction * 1000).rounded() / 1000)"
    }
    return text
  }

  /// The experts in a line: how many, of what width, how they lie.
  private func text(of experts: ExpertConfiguration) -> String {
    var text =
      "\(experts.expertsPerToken) of \(experts.expertCount), FFN \(experts.feedForwardLength)"
    if let length = experts.sharedFeedForwardLength {
      text += ", \(experts.gatesSharedExpert ? "gated " : "")shared FFN \(length)"
    }
    if experts.normalisesWeights { text += ", weights normalised" }
    if let bundle {
      text += ", in bundles of \(ByteCount(bundle.byteStride))"
    }
    return text
  }
}
