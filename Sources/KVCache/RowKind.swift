/// What a row's token is to its sequence; it stays so for the token's life.
///
/// Positions do not tell: the prompt of a second turn follows the first turn's answer.
public enum RowKind: Sendable, Equatable {
  /// A token that the model is given, of a prompt: it attends over everything before it.
  case read
  /// A token of the model's answer: it attends over what the policy plans.
  case answer
}
