import ModelFormat
import Synchronization
public import Tokenization
import WeightLoader

extension LanguageModel {
  /// The tokens of a text to be continued; control tokens spelt out in it are meant.
  ///
  /// - Throws: ``RuntimeError/tokenizer(_:)``.
  public func prompt(_ text: String) throws(RuntimeError) -> [Int32] {
    do throws(TokenizerError) {
      // An EOS after the prompt would end what is to be continued.
      return try tokenizer.encodePrompt(
        [ChatPiece(Array(text.utf8), isMarkup: true)], addsEOS: false)
    } catch { throw RuntimeError(error, in: source.path) }
  }

  /// The tokens of a conversation to be answered, which the model's chat template frames; control tokens
  /// spelt out in its messages stay text.
  ///
  /// - Throws: ``RuntimeError/badPrompt(_:)`` if the model has no chat template or its template has no
  ///   place for such a conversation, ``RuntimeError/tokenizer(_:)``.
  public func prompt(_ messages: [ChatMessage]) throws(RuntimeError) -> [Int32] {
    try prompt(Conversation(messages))
  }

  /// As `prompt(_:)`, of a conversation that may have tools and documents.
  ///
  /// - Parameter template: what frames it instead of the model's own template.
  public func prompt(
    _ conversation: Conversation, template: ChatTemplate? = nil
  ) throws(RuntimeError) -> [Int32] {
    let framing = try framing(conversation, template)
    return try express { () throws(TokenizerError) in
      try tokenizer.encodeChat(conversation, template: framing)
    }
  }

  /// The tokens of a conversation to be answered that goes on from an earlier prompt and the answer to it.
  ///
  /// They begin with those of that prompt and answer as they are; what the answer says is not read again, so that the
  /// model goes on from what it wrote, and keys and values of it serve again.
  ///
  /// - Parameters:
  ///   - tokens: a prompt and the answer to it.
  ///   - index: of the message that is that answer.
  ///   - template: what frames the conversation instead of the model's own template; what framed the prompt.
  /// - Throws: as `prompt(_:)`; ``RuntimeError/badPrompt(_:)`` also where the template does not show where an answer ends.
  public func prompt(
    _ conversation: Conversation, continuing tokens: [Int32], answer index: Int,
    template: ChatTemplate? = nil
  ) throws(RuntimeError) -> [Int32] {
    let framing = try framing(conversation, template)
    let rest = try express { () throws(TokenizerError) in
      try tokenizer.encodeChat(conversation, after: index, template: framing)
    }
    guard let rest else {
      throw .badPrompt("the chat template does not show where the answer before ends")
    }
    return tokens + rest
  }

  /// The text that a conversation's prompt consists of.
  ///
  /// - Parameter template: what frames it instead of the model's own template.
  /// - Throws: as `prompt(_:)`.
  public func text(
    of conversation: Conversation, template: ChatTemplate? = nil
  ) throws(RuntimeError) -> [UInt8] {
    let framing = try framing(conversation, template)
    return try express { () throws(TokenizerError) in
      try tokenizer.renderChat(conversation, template: framing)
    }
  }

  /// What frames a conversation: `template`, or else the model's own.
  private func framing(
    _ conversation: Conversation, _ template: ChatTemplate?
  ) throws(RuntimeError) -> ChatTemplate {
    if let template { return template }
    guard let own = try ownTemplate(hasTools: conversation.hasTools) else {
      throw .badPrompt("the model has no chat template: continue plain text instead")
    }
    return own
  }

  /// Does what a template may have no place for.
  private func express<Result>(
    _ work: () throws(TokenizerError) -> Result
  ) throws(RuntimeError) -> Result {
    do throws(TokenizerError) { return try work() } catch .unsupportedConversation(let reason) {
      throw .badPrompt(TokenizerError.unsupportedConversation(reason).description)
    } catch { throw RuntimeError(error, in: source.path) }
  }

  /// The template in the model's file, where it has one; it is parsed once.
  private func ownTemplate(hasTools: Bool) throws(RuntimeError) -> ChatTemplate? {
    guard let text = source.description.chatTemplate(hasTools: hasTools) else { return nil }
    if let known = templates.withLock({ $0[text] }) { return known }
    let template: ChatTemplate
    do throws(TokenizerError) { template = try ChatTemplate(text) } catch {
      throw RuntimeError(error, in: source.path)
    }
    templates.withLock { $0[text] = template }
    return template
  }

  /// What is odd about a prompt and makes answers worse, in one line; nil = nothing.
  public func oddity(of prompt: [Int32]) -> String? {
    guard let bos = tokenizer.bosToken, prompt.count > 1 else { return nil }
    if prompt[0] != bos, tokenizer.addsBOS {
      return
        "the prompt has no BOS token (\(bos)), which the model's file asks for: its chat template "
        + "writes none, and as in transformers none is added"
    }
    guard prompt[0] == bos, prompt[1] == bos else { return nil }
    return "the prompt begins with two BOS tokens (\(bos)): leave out the one in the text, "
      + "because the model's own is added"
  }
}
