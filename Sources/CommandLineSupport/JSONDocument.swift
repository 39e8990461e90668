public import ArgumentParser
import HostResources
public import ModelFormat
import TensorBasics
public import WeightLoader

/// The object that `--json` prints: what all commands have in common, then what is the command's own
/// (docs/json.md).
public struct JSONDocument {
  private let command: String
  private let arguments: any ParsableArguments.Type
  private let model: ModelSummary?
  private let figures: [Figure]

  /// Counts changes of meaning; a new member is none.
  public static let schemaVersion = 1

  /// - Parameters:
  ///   - command: as it is called, such as `flashinfer-bench load`.
  ///   - arguments: what the command takes.
  ///   - model: nil where the command is about none.
  public init(
    _ command: String, _ arguments: any ParsableArguments.Type, model: ModelSummary?,
    figures: [Figure] = []
  ) {
    self.command = command
    self.arguments = arguments
    self.model = model
    self.figures = figures
  }

  /// Prints the object on a line.
  ///
  /// - Parameter members: writes what is the command's own.
  public func print(_ members: (inout JSONWriter) -> Void = { _ in }) {
    var writer = JSONWriter { Terminal.print($0) }
    writer.object { json in
      json.number("schemaVersion", Self.schemaVersion)
      json.text("command", command)
      json.text("version", FlashInferVersion.current)
      if let model { model.write(to: &json) } else { json.null("model") }
      Self.writeMachine(to: &json)
      json.object("options") { json in
        GivenArguments(CommandArguments.all, of: arguments).write(to: &json)
      }
      json.array("figures", of: figures) { $1.write(to: &$0) }
      members(&json)
    }
    writer.finish()
  }

  private static func writeMachine(to json: inout JSONWriter) {
    let machine = Machine()
    json.object("machine") { json in
      json.text("cpu", machine.processorName)
      json.number("cores", machine.processorCount)
      json.number("memoryBytes", machine.memoryByteCount)
      json.text("kernel", machine.kernel)
    }
  }
}

/// The model that a command was about.
public struct ModelSummary {
  private let path: String
  private let description: ModelDescription
  private let identity: ModelIdentity?

  /// - Parameter path: as it was given.
  public init(_ path: String, _ description: ModelDescription) {
    self.path = path
    self.description = description
    identity = nil
  }

  /// A model that is open, with its identity where that is known without reading all weights.
  public init(_ path: String, _ source: ModelSource) {
    self.path = path
    description = source.description
    identity = try? source.knownIdentity()
  }

  fileprivate func write(to json: inout JSONWriter) {
    json.object("model") { json in
      json.text("path", path)
      json.text("name", description.name)
      json.text("quantisation", description.commonMatrixType?.name)
      json.text("identity", identity?.description)
      json.number("bytes", description.weightByteCount)
    }
  }
}
