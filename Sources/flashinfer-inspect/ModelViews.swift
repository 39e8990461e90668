import ArgumentParser
import CommandLineSupport
import ModelFormat
import Runtime
import TensorBasics
import Tokenization
import WeightLoader

/// What of a model file is shown instead of its description.
struct ViewOptions: ParsableArguments {
  @Flag(help: "List the tensors: type, shape, offset and bytes of each.")
  var tensors = false

  @Flag(help: "Print the chat template, as it is in the file.")
  var template = false

  @Option(
    help: """
      Print TEXT as the chat template frames it, with control tokens spelled out, and its tokens; - is \
      standard input.
      """)
  var render: String?

  @Option(help: "With --render: a system message.")
  var system: String?

  func validate() throws {
    guard system == nil || render != nil else {
      throw ValidationError("--system goes with --render")
    }
  }

  /// Prints what was asked for.
  ///
  /// - Returns: whether anything was.
  func show(_ path: String) throws -> Bool {
    guard tensors || template || render != nil else { return false }
    let description = try ModelSource.describe(path)
    if tensors { Self.printTensors(description) }
    if template { Terminal.print(try Self.template(description, path) + "\n") }
    if let render { try printRendered(render, description, path) }
    return true
  }

  private static func printTensors(_ description: ModelDescription) {
    let names = ["name", "type", "layout", "shape", "offset", "bytes"]
    let hasFiles = description.files.count > 1
    let rows = description.tensors.map { tensor in
      [
        tensor.name, tensor.type.name, tensor.layout.rawValue, shape(of: tensor),
        "\(tensor.offset)",
        "\(tensor.byteCount)",
      ] + (hasFiles ? [Progress.name(description.files[tensor.fileIndex])] : [])
    }
    let table = [names + (hasFiles ? ["file"] : [])] + rows
    let widths = table[0].indices.map { column in table.map { $0[column].count }.max() ?? 0 }
    for row in table {
      let cells = zip(row, widths).enumerated().map { column, cell in
        let blanks = String(repeating: " ", count: cell.1 - cell.0.count)
        // Numbers end in one column.
        return (3...5).contains(column) ? blanks + cell.0 : cell.0 + blanks
      }
      Terminal.print(cells.joined(separator: "  ") + "\n")
    }
  }

  /// Rows × elements of a row, before them the matrices of a stack.
  private static func shape(of tensor: TensorRecord) -> String {
    guard let stack = tensor.stack else {
      return tensor.rowCount == 1
        ? "\(tensor.columnCount)" : "\(tensor.rowCount) × \(tensor.columnCount)"
    }
    return "\(stack.count) × \(tensor.rowCount / stack.count) × \(tensor.columnCount)"
  }

  private static func template(_ description: ModelDescription, _ path: String) throws -> String {
    guard let template = description.chatTemplate else {
      throw CommandError(.badData, "\(path): the file has no chat template")
    }
    return template
  }

  private func printRendered(
    _ text: String, _ description: ModelDescription, _ path: String
  ) throws {
    guard let definition = description.tokenizer else {
      throw CommandError(.badData, "\(path): the file holds no vocabulary")
    }
    let source = try Self.template(description, path)
    let content = text == "-" ? try Terminal.readPrompt(path: nil) : text.systemPath
    do {
      let tokenizer = try Tokenizer(definition)
      var messages = [ChatMessage(role: .user, content: content)]
      if let system {
        messages.insert(ChatMessage(role: .system, content: system.systemPath), at: 0)
      }
      let tokens = try tokenizer.encodeChat(messages, template: ChatTemplate.recognise(source))
      var bytes: [UInt8] = []
      for token in tokens { tokenizer.decode(token, into: &bytes, includesControl: true) }
      Terminal.print(bytes)
      Terminal.print(
        "\n\n\(tokens.count) tokens: [\(tokens.map(String.init).joined(separator: ","))]\n")
    } catch { throw RuntimeError.tokenizer(error) }
  }
}

extension ModelDescription {
  /// Elements of all tensors; nil where some of the model lies in bundles of neurons.
  var parameterCount: Int? {
    neurons == nil ? tensors.reduce(0) { $0 + $1.rowCount * $1.columnCount } : nil
  }

  /// The type that most bytes of matrices are of.
  var commonMatrixType: ElementType? {
    var byteCounts: [ElementType: Int] = [:]
    for tensor in tensors where tensor.rowCount > 1 {
      byteCounts[tensor.type, default: 0] += tensor.byteCount
    }
    return byteCounts.max { ($0.value, $0.key.name) < ($1.value, $1.key.name) }?.key
  }
}
