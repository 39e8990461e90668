import ModelFormat
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
    } catch { throw .tokenizer(error) }
  }

  /// The tokens of a conversation to be answered, which the model's chat template frames; control tokens
  /// spelt out in its messages stay text.
  ///
  /// - Throws: ``RuntimeError/badPrompt(_:)`` if the model has no chat template or its template has no
  ///   place for such a conversation, ``RuntimeError/tokenizer(_:)``.
  public func prompt(_ messages: [ChatMessage]) throws(RuntimeError) -> [Int32] {
    guard let template = source.description.chatTemplate else {
      throw .badPrompt("the model has no chat template: continue plain text instead")
    }
    do throws(TokenizerError) {
      return try tokenizer.encodeChat(messages, template: ChatTemplate.recognise(template))
    } catch .unsupportedConversation(let reason) {
      throw .badPrompt(TokenizerError.unsupportedConversation(reason).description)
    } catch { throw .tokenizer(error) }
  }

  /// What is odd about a prompt and makes answers worse, in one line; nil = nothing.
  public func oddity(of prompt: [Int32]) -> String? {
    guard let bos = tokenizer.bosToken, prompt.count > 1, prompt[0] == bos, prompt[1] == bos else {
      return nil
    }
    return "the prompt begins with two BOS tokens (\(bos)): leave out the one in the text, "
      + "because the model's own is added"
  }
}
