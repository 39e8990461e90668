/// Case as Python maps it: full mappings, and the final sigma.
extension MarkedText {
  var lowercased: MarkedText {
    mapScalars { scalar, offset in lower(scalar, at: offset) }
  }

  var uppercased: MarkedText {
    mapScalars { scalar, _ in scalar.properties.uppercaseMapping }
  }

  var casefolded: MarkedText {
    // Folding is lowering an upper-cased character, but for a few that have no upper case.
    mapScalars { scalar, _ in
      scalar == "ß" || scalar == "ẞ"
        ? "ss" : scalar == "ς" ? "σ" : scalar.properties.lowercaseMapping
    }
  }

  var swappedCase: MarkedText {
    mapScalars { scalar, offset in
      scalar.properties.isUppercase
        ? lower(scalar, at: offset)
        : scalar.properties.isLowercase ? scalar.properties.uppercaseMapping : nil
    }
  }

  /// `str.capitalize`.
  var capitalized: MarkedText {
    mapScalars { scalar, offset in
      offset == 0 ? scalar.properties.titlecaseMapping : lower(scalar, at: offset)
    }
  }

  /// `str.title`: a letter after one that has case is lower.
  var titled: MarkedText {
    var afterCased = false
    return mapScalars { scalar, offset in
      defer { afterCased = scalar.properties.isCased }
      return afterCased ? lower(scalar, at: offset) : scalar.properties.titlecaseMapping
    }
  }

  /// Whether it has cased characters and none of the other case.
  func isCase(upper: Bool) -> Bool {
    var found = false
    var offset = 0
    while offset < count {
      let (scalar, length) = bytes.scalar(at: offset)
      if let properties = scalar?.properties {
        if upper ? properties.isLowercase : properties.isUppercase { return false }
        if properties.generalCategory == .titlecaseLetter { return false }
        if upper ? properties.isUppercase : properties.isLowercase { found = true }
      }
      offset += length
    }
    return found
  }

  private func lower(_ scalar: Unicode.Scalar, at offset: Int) -> String {
    if scalar == "Σ" { return isFinalSigma(at: offset) ? "ς" : "σ" }
    return scalar.properties.lowercaseMapping
  }

  /// After a cased character and not before one, those that are ignored for case aside.
  private func isFinalSigma(at offset: Int) -> Bool {
    var before = offset
    var hasCasedBefore = false
    while before > 0 {
      before = bytes.characterStart(before: before)
      guard let scalar = bytes.scalar(at: before).scalar else { break }
      if scalar.properties.isCaseIgnorable { continue }
      hasCasedBefore = scalar.properties.isCased
      break
    }
    guard hasCasedBefore else { return false }
    var after = offset + bytes.scalar(at: offset).length
    while after < count {
      let (scalar, length) = bytes.scalar(at: after)
      guard let scalar else { return true }
      if !scalar.properties.isCaseIgnorable { return !scalar.properties.isCased }
      after += length
    }
    return true
  }
}
