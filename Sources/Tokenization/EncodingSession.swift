/// Turns the runs of text between special tokens into tokens, keeping its memory between them.
protocol EncodingSession: ~Copyable {
  /// Appends the tokens of `text`, which is not empty.
  ///
  /// - Parameter startsText: whether a special token or nothing stands before.
  mutating func encode(
    _ text: UnsafeBufferPointer<UInt8>, startsText: Bool, into output: inout [Int32]
  ) throws(TokenizerError)
}
