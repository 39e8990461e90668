import ArgumentParser
import CommandLineSupport

/// Many prompts in place of one.
struct PromptsArguments: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      """
      Answer all prompts of a file of JSON lines (- is standard input), several at a time: one object a line \
      with prompt or messages and, where wanted, id, max_tokens, temperature, seed and stop. The results are JSON \
      lines too, in the order in which they are done.
      """, valueName: "file"))
  var prompts: String?

  @Option(
    help: ArgumentHelp(
      """
      With --prompts: add the results to this file instead of standard output (-). Prompts whose answers it holds are not \
      answered again, so a run that was interrupted can be repeated; those that ended in an error are.
      """, valueName: "file"))
  var output: String?

  @Option(
    parsing: .unconditional,
    help:
      "With --prompts: answers under way at the same time (default: as many as memory has room for, up to 32)."
  )
  var sequences: Int?

  mutating func validate() throws {
    if output == "-" { output = nil }
    guard (1...ResourceOptions.mostSequences).contains(sequences ?? 1) else {
      throw ValidationError(
        "--sequences must be between 1 and \(ResourceOptions.mostSequences), not \(sequences ?? 0)")
    }
    guard prompts == nil,
      let option = output != nil ? "--output" : sequences.map({ _ in "--sequences" })
    else { return }
    throw ValidationError("\(option) needs --prompts")
  }
}
