import ArgumentParser
import CommandLineSupport
import Grammar
import Runtime

/// How tokens are drawn, and how many.
///
/// Values are taken whatever they begin with, so that a negative one is refused for what it is.
struct SamplingArguments: ParsableArguments {
  @Option(parsing: .unconditional, help: "Maximum number of tokens to generate.")
  var maxTokens = 512

  @Option(
    parsing: .unconditional, help: "How freely tokens are drawn; 0 = always the most probable.")
  var temperature: Float = 0.7

  @Option(parsing: .unconditional, help: "Keep the k most probable tokens; 0 = all.")
  var topK = 40

  @Option(
    parsing: .unconditional,
    help: "Keep the most probable tokens up to this total probability; 1 = all.")
  var topP: Float = 0.95

  @Option(
    parsing: .unconditional,
    help: "Keep tokens of at least this share of the highest probability; 0 = all.")
  var minP: Float = 0.05

  @Option(parsing: .unconditional, help: "Penalty on the last 64 tokens; 1 = none.")
  var repetitionPenalty: Float = 1

  @Option(
    parsing: .unconditional,
    help: """
      Seed of the answer's random choices (default: random, printed). The same prompt and seed give the same \
      answer; earlier versions gave another.
      """)
  var seed: SeedArgument?

  @Flag(help: "Generate past end-of-generation tokens.")
  var ignoreEos = false

  @Option(
    help: ArgumentHelp(
      "The answer is JSON that this schema allows; - is standard input.", valueName: "file"))
  var jsonSchema: String?

  @Option(
    help: ArgumentHelp(
      "The answer is what this grammar in GBNF matches; - is standard input.", valueName: "file"))
  var grammar: String?

  func validate() throws {
    guard jsonSchema == nil || grammar == nil else {
      throw ValidationError("give --json-schema or --grammar, not both")
    }
    guard (1...ResourceOptions.longestContext).contains(maxTokens) else {
      throw ValidationError(
        "--max-tokens must be between 1 and \(ResourceOptions.longestContext), not \(maxTokens)")
    }
    if let seed, seed.value == nil {
      throw ValidationError("--seed must be \(SamplingOptions.seedForm), not \(seed.text)")
    }
    guard temperature >= 0, temperature.isFinite else {
      throw ValidationError("--temperature must be 0 or more, not \(temperature)")
    }
    guard topK >= 0 else { throw ValidationError("--top-k must be 0 or more, not \(topK)") }
    guard topP > 0, topP <= 1 else {
      throw ValidationError("--top-p must be above 0 and at most 1, not \(topP)")
    }
    guard (0...1).contains(minP) else {
      throw ValidationError("--min-p must be between 0 and 1, not \(minP)")
    }
    guard repetitionPenalty > 0, repetitionPenalty.isFinite else {
      throw ValidationError("--repetition-penalty must be above 0, not \(repetitionPenalty)")
    }
  }

  /// What the answer must be; nil = anything.
  func compiledGrammar() throws -> CompiledGrammar? {
    guard let path = jsonSchema ?? grammar else { return nil }
    let file = path == "-" ? nil : path
    let text = String(decoding: try Terminal.readAll(path: file), as: UTF8.self)
    do throws(GrammarError) {
      return jsonSchema == nil
        ? try CompiledGrammar(gbnf: text) : try CompiledGrammar(jsonSchema: text)
    } catch { throw CommandError(.badData, "\(file ?? "standard input"): \(error)") }
  }

  func chosenSeed() -> UInt64 { seed?.value ?? UInt64.random(in: 0...UInt64(UInt32.max)) }

  func options(seed: UInt64) -> SamplingOptions {
    SamplingOptions(
      temperature: temperature, topK: topK, topP: topP, minP: minP,
      repetitionPenalty: repetitionPenalty, seed: seed)
  }
}
