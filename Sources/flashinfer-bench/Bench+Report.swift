import ArgumentParser
import CommandLineSupport
import ModelFormat
import Runtime

extension ParsableCommand {
  /// Prints what a bench found out: lines for people, or with `--json` one object (docs/json.md).
  ///
  /// - Parameters:
  ///   - model: what was measured; nil where that is no model.
  ///   - members: writes what is in the object beside figures.
  func report(
    _ figures: [Figure], _ model: ModelSummary? = nil, asJSON: Bool,
    _ members: (inout JSONWriter) -> Void = { _ in }
  ) {
    guard asJSON else { return figures.printLines() }
    JSONDocument(
      "flashinfer-bench \(Self.configuration.commandName ?? "")", Self.self, model: model,
      figures: figures
    ).print(members)
  }
}

extension LanguageModel {
  /// The model as reports name it.
  ///
  /// - Parameter path: as it was given.
  func summary(_ path: String) -> ModelSummary { ModelSummary(path, source) }
}
