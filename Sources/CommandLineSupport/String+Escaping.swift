extension String {
  /// The text on one line and harmless on a terminal: control characters are `\n`, `\t` or `\u{1b}`.
  ///
  /// So are those that end a line or change the direction of what follows. Files may hold any.
  public var escapingControlCharacters: String {
    var text = ""
    for scalar in unicodeScalars {
      switch (scalar, scalar.properties.generalCategory) {
      case ("\n", _): text += "\\n"
      case ("\t", _): text += "\\t"
      case ("\r", _): text += "\\r"
      case (_, .control), (_, .format), (_, .lineSeparator), (_, .paragraphSeparator):
        text += "\\u{" + String(scalar.value, radix: 16) + "}"
      default: text.unicodeScalars.append(scalar)
      }
    }
    return text
  }
}
