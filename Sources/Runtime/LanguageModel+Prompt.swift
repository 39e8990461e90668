import ModelFormat
import Tokenization
import WeightLoader

extension LanguageModel {
  /// The tokens of a text to be continued, or of a message to be answered.
  ///
  /// - Parameter isChat: whether the text is a message, which the model's chat template frames; control
  ///   tokens spelt out in it stay text then.
  /// - Throws: ``RuntimeError/badPrompt(_:)`` where the model has no chat template,
  ///   ``RuntimeError/tokenizer(_:)``.
  public func prompt(_ text: String, isChat: Bool = false) throws(RuntimeError) -> [Int32] {
    if isChat, source.description.chatTemplate == nil {
      throw .badPrompt("the model has no chat template: have the text continued instead")
    }
    do throws(TokenizerError) {
      guard isChat, let template = source.description.chatTemplate else {
        return try tokenizer.encodePrompt(
          [ChatPiece(Array(text.utf8), isMarkup: true)], addsEOS: false)
      }
      return try tokenizer.encodeChat(
        [ChatMessage(role: .user, text)], template: ChatTemplate.recognise(template))
    } catch { throw .tokenizer(error) }
  }
}
