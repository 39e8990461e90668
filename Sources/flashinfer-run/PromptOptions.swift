import ArgumentParser
import CommandLineSupport
import Glibc
import ModelFormat
import Runtime
import TensorBasics
import Tokenization
import WeightLoader

/// Where the prompt comes from and how it is framed.
struct PromptOptions: ParsableArguments {
  @Argument(
    help: """
      The prompt, byte for byte; after -- where it begins with a dash. Without it, or as -, standard \
      input is read, without a byte order mark at the start and one newline at the end. Without it on a \
      terminal, a conversation begins.
      """)
  var prompt: String?

  @Option(
    help: ArgumentHelp(
      "Read the prompt from a file, or with - from standard input.", valueName: "file"))
  var promptFile: String?

  @Option(
    name: .customLong("tokens"),
    help: "The prompt as token ids (1,2,3), taken as they are.")
  var tokenList: String?

  @OptionGroup(title: "Prompt") var template: TemplateOptions

  @Flag(
    help: "No chat template: the prompt is text to be continued, control tokens in it included.")
  var raw = false

  /// Whether there is one, apart from standard input.
  var isGiven: Bool {
    prompt != nil || promptFile != nil || tokenList != nil || template.messages != nil
  }

  func validate() throws {
    let sources = [prompt, promptFile, tokenList, template.messages].compactMap { $0 }.count
    guard sources <= 1 else {
      throw ValidationError(
        "give the prompt once: as an argument, --prompt-file, --messages or --tokens")
    }
    let isPiped = prompt ?? promptFile ?? "-" == "-" && tokenList == nil && template.messages == nil
    guard template.system != "-" || !isPiped else {
      throw ValidationError("standard input is read once: by --system or for the prompt")
    }
    guard raw || tokenList != nil, let option = template.firstGiven else { return }
    throw ValidationError(
      "\(option) is for the chat template, which \(raw ? "--raw" : "--tokens") does without")
  }

  /// The prompt's tokens for `model`.
  func tokens(_ model: LanguageModel) throws -> [Int32] {
    if let tokenList { return try Self.parse(tokenList) }
    do {
      if raw {
        // Control tokens written out are meant: without a template there is no other way to them. An
        // EOS after the prompt would end what is to be continued.
        return try model.tokenizer.encodePrompt(
          [ChatPiece(try text(), isMarkup: true)], addsEOS: false)
      }
      let conversation = try self.template.conversation(orPrompt: text)
      let own = model.source.description.chatTemplate(hasTools: conversation.hasTools)
      guard let template = try template.chatTemplate(or: own) else {
        throw CommandError(
          .badData,
          "the model has no chat template: use --raw to have the prompt continued as text, or give "
            + "--chat-template"
        )
      }
      self.template.warn(of: conversation, for: template)
      return try model.tokenizer.encodeChat(conversation, template: template)
    } catch let error as TokenizerError { throw RuntimeError(error, in: model.source.path) }
  }

  /// The prompt's bytes, which must be text.
  private func text() throws -> [UInt8] {
    if let prompt, prompt != "-" {
      if prompt.hasSuffix(".gguf"), prompt.withSystemPath({ access($0, F_OK) }) == 0 {
        throw CommandError(
          .usage,
          "the prompt '\(prompt)' is a model's file: give one file or member of a model, then the prompt "
            + "(--prompt-file for a text that is in a file)")
      }
      return try Self.notEmpty(TemplateOptions.text(prompt, "the prompt"))
    }
    if promptFile ?? "-" == "-", Terminal.inputIsInteractive {
      throw CommandError(.usage, "no prompt: give one as an argument, --prompt-file or a pipe")
    }
    return try Self.notEmpty(Terminal.readPrompt(path: promptFile))
  }

  private static func notEmpty(_ text: [UInt8]) throws -> [UInt8] {
    guard !text.isEmpty else {
      throw CommandError(.badData, "the prompt is empty: there is nothing to answer")
    }
    return text
  }

  private static func parse(_ list: String) throws -> [Int32] {
    guard list.contains(where: { $0 != " " }) else {
      throw CommandError(.usage, "--tokens: the list is empty")
    }
    return try list.split(separator: ",", omittingEmptySubsequences: false).map { part in
      // Spaces around an id, as in 1, 2; not instead of a comma.
      let words = part.split(separator: " ")
      guard words.count == 1, let token = Int32(words[0]) else {
        throw CommandError(
          .usage, "--tokens: '\(part)' is not a token id; ids are separated by commas: 1,2,3")
      }
      return token
    }
  }
}
