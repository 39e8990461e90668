import ArgumentParser
import CommandLineSupport
import Jinja
import ModelFormat
import Runtime
import TensorBasics
import Tokenization
import WeightLoader

/// What of a model file is shown instead of its description.
struct ViewOptions: ParsableArguments {
  @Flag(help: "List the tensors: type, shape, offset and bytes of each.")
  var tensors = false

  @Flag(
    help: """
      Show the files' metadata: all keys of a GGUF file, __metadata__ of safetensors; of long arrays how \
      they begin.
      """)
  var metadata = false

  @Flag(help: "Print the chat template, as it is in the file.")
  var template = false

  @Option(
    help: ArgumentHelp(
      "Print TEXT as the chat template frames it, with control tokens spelled out, and its tokens; - is "
        + "standard input.", valueName: "text"))
  var render: String?

  @OptionGroup(title: "Parts of a model") var framing: TemplateOptions

  func validate() throws {
    guard render == nil || framing.messages == nil else {
      throw ValidationError("give the prompt once: with --render or with --messages")
    }
    guard render != "-" || framing.system != "-" else {
      throw ValidationError("standard input is read once: by --system or by --render")
    }
    guard let option = framing.firstGiven, render == nil, framing.messages == nil else { return }
    throw ValidationError("\(option) goes with --render or --messages")
  }

  private var isRendering: Bool { render != nil || framing.messages != nil }

  /// Whether any of them is asked for.
  var areAsked: Bool { metadata || tensors || needsDescription }

  /// An option that asks for one of them, for errors.
  var firstAsked: String? {
    if tensors { return "--tensors" }
    if metadata { return "--metadata" }
    if template { return "--template" }
    if render != nil { return "--render" }
    return framing.messages != nil ? "--messages" : nil
  }

  /// Whether the file must be a model that is known; keys of any file can be shown.
  private var needsDescription: Bool { template || isRendering }

  /// What was asked for of the file or folder at `path`, and the model's description where it is known.
  func views(of path: String) throws -> (ModelViews, ModelDescription?) {
    var views = ModelViews(metadata: metadata ? try MetadataView(path) : nil)
    if tensors {
      let contents = try FileMetadata(path)
      (views.tensors, views.files) = (contents.tensors, contents.files)
    }
    guard needsDescription else { return (views, try? ModelSource.describe(path)) }
    let description = try ModelSource.survey(path)
    if template { views.template = try Self.template(description, path) }
    if isRendering { views.rendered = try rendered(description, path) }
    return (views, description)
  }

  private static func template(_ description: ModelDescription, _ path: String) throws -> String {
    guard let template = description.chatTemplate else {
      throw CommandError(.badData, "\(path): the file has no chat template")
    }
    return template
  }

  private func rendered(
    _ description: ModelDescription, _ path: String
  ) throws -> ModelViews.Rendered {
    do {
      guard let tokenizer = try Tokenizer(of: description) else {
        throw CommandError(.badData, "\(path): \(description.vocabularyProblem)")
      }
      let conversation = try framing.conversation {
        render == "-" ? try Terminal.readPrompt(path: nil) : (render ?? "").systemPath
      }
      guard
        let template = try framing.chatTemplate(
          or: description.chatTemplate(hasTools: conversation.hasTools))
      else {
        throw CommandError(.badData, "\(path): the file has no chat template")
      }
      framing.warn(of: conversation, for: template)
      let text = try tokenizer.render(conversation, template: template)
      return ModelViews.Rendered(
        text: text.bytes, tokens: try tokenizer.encode(text, of: template))
    } catch let error as TokenizerError { throw RuntimeError(error, in: path) }
  }
}

/// Parts of a model file, for people and as JSON.
struct ModelViews {
  var metadata: MetadataView?
  var tensors: [LoadableTensor]?
  /// Where the tensors lie.
  var files: [String] = []
  var template: String?
  var rendered: Rendered?

  /// A prompt as the chat template frames it.
  struct Rendered {
    var text: [UInt8]
    var tokens: [Int32]
  }

  func printLines() {
    metadata?.printLines()
    if let tensors { printLines(of: tensors) }
    if let template { Terminal.print(template + "\n") }
    if let rendered {
      Terminal.print(rendered.text)
      let tokens = rendered.tokens.map(String.init).joined(separator: ",")
      Terminal.print("\n\n\(rendered.tokens.count) tokens: [\(tokens)]\n")
    }
  }

  /// Writes the members of what was asked for.
  func write(to json: inout JSONWriter) {
    metadata?.write(to: &json)
    if let tensors {
      json.array("tensorList", of: tensors) { list, tensor in
        list.object { json in
          json.text("name", tensor.name)
          json.text("type", tensor.typeName)
          json.text("layout", tensor.layout.rawValue)
          json.array("shape", of: tensor.shape) { $0.number(nil, $1) }
          json.text("file", files[tensor.fileIndex])
          json.number("offset", tensor.offset)
          json.number("bytes", tensor.byteCount)
        }
      }
    }
    if let template { json.text("template", template) }
    guard let rendered else { return }
    json.object("rendered") { json in
      json.text("text", utf8: Array(String(decoding: rendered.text, as: UTF8.self).utf8))
      json.array("tokens", of: rendered.tokens) { $0.number(nil, $1) }
    }
  }

  private func printLines(of tensors: [LoadableTensor]) {
    let hasFiles = files.count > 1
    let columns = ["name", "type", "layout", "shape", "offset", "bytes"]
    var table = Table(columns: columns + (hasFiles ? ["file"] : []), numbers: 3..<6)
    for tensor in tensors {
      table.add(
        [
          tensor.name, tensor.typeName, tensor.layout.rawValue,
          tensor.shape.map(String.init).joined(separator: " × "),
          "\(tensor.offset)", "\(tensor.byteCount)",
        ] + (hasFiles ? [Progress.name(files[tensor.fileIndex])] : []))
    }
    table.printLines()
  }
}
