import ArgumentParser
import CommandLineSupport
import ModelFormat
import Runtime
import TensorBasics
import Tokenization

/// Where the tokens that a bench decodes come from.
struct TokenOptions: ParsableArguments {
  @Option(help: "Feed seeded random ids instead of the model's own greedy text.")
  var randomTokens: UInt64?
  @Option(
    help: ArgumentHelp(
      "Feed the text of a file instead, or with - of standard input.", valueName: "file"))
  var text: String?

  func validate() throws {
    guard randomTokens == nil || text == nil else {
      throw ValidationError("--random-tokens or --text, not both")
    }
  }

  /// - Parameter count: tokens that will be asked for at most.
  func makeFeed(_ model: LanguageModel, count: Int) throws -> TokenFeed {
    try makeFeeds(1, model, count: count)[0]
  }

  /// Feeds of several sequences, which differ: random ids have other seeds, texts begin in other places.
  ///
  /// - Parameter count: tokens that each will be asked for at most.
  func makeFeeds(
    _ sequenceCount: Int, _ model: LanguageModel, count: Int
  ) throws -> [TokenFeed] {
    let vocabularyCount = model.configuration.vocabularyCount
    guard let text else {
      return (0..<sequenceCount).map { number in
        TokenFeed(
          vocabularyCount: vocabularyCount,
          generator: randomTokens.map { SeededGenerator(seed: $0 &+ UInt64(number)) }, text: nil)
      }
    }
    let tokens = try model.encode(textFile: text)
    guard tokens.count >= count else {
      throw CommandError(
        .badData, "\(text): \(tokens.count) tokens, \(count) are needed")
    }
    return (0..<sequenceCount).map { number in
      TokenFeed(
        vocabularyCount: vocabularyCount, generator: nil, text: tokens,
        position: number * tokens.count / sequenceCount)
    }
  }
}

extension LanguageModel {
  /// What a text file is called in errors.
  static func name(ofTextFile path: String) -> String { path == "-" ? "standard input" : path }

  /// The tokens of a whole text file, or with `-` of standard input, as of a prompt.
  func encode(textFile path: String) throws -> [Int32] {
    let text = try Terminal.readAll(path: path == "-" ? nil : path)
    do { return try tokenizer.encodePrompt(text) } catch {
      throw CommandError(.badData, "\(Self.name(ofTextFile: path)): \(error)")
    }
  }
}

extension LanguageModel {
  /// Chunks of a text file that do not overlap, the first token of each replaced by BOS where the model wants
  /// one.
  ///
  /// - Parameter most: chunks at most; 0 = all.
  func chunks(ofTextFile path: String, length: Int, most: Int) throws -> [[Int32]] {
    let tokens = try encode(textFile: path)
    let available = tokens.count / length
    guard available > 0 else {
      throw CommandError(
        .badData,
        "\(Self.name(ofTextFile: path)): \(tokens.count) tokens are less than one chunk of \(length)"
      )
    }
    return (0..<(most == 0 ? available : min(most, available))).map { chunk in
      var part = Array(tokens[chunk * length..<(chunk + 1) * length])
      if tokenizer.addsBOS, let bos = tokenizer.bosToken { part[0] = bos }
      return part
    }
  }
}

/// Tokens one after the other: a text's, random ones, or what the model finds most probable.
struct TokenFeed {
  fileprivate let vocabularyCount: Int
  fileprivate var generator: SeededGenerator?
  fileprivate let text: [Int32]?
  private var position: Int

  fileprivate init(
    vocabularyCount: Int, generator: SeededGenerator?, text: [Int32]?, position: Int = 0
  ) {
    self.vocabularyCount = vocabularyCount
    self.generator = generator
    self.text = text
    self.position = position
  }

  /// The token to decode after the one that gave `logits`.
  mutating func next(after logits: UnsafeMutableBufferPointer<Float>) -> Int32 {
    if let text {
      position += 1
      return text[position % text.count]
    }
    guard var generator else { return Sampler.argmax(logits.span) }
    let token = Int32(generator.next() % UInt64(vocabularyCount))
    self.generator = generator
    return token
  }
}
