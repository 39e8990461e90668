import ModelFormat

/// When the bytes of a flash image are compared with its checksums.
public enum Verification: String, Sendable, CaseIterable {
  /// As they are read for the first time.
  case first
  /// At every read, for drives and cables that are not trusted.
  case always
}

extension Verification {
  /// Throws if a model's file does not let every read be compared.
  ///
  /// - Parameters: as those of a ``WeightStream``.
  /// - Throws: ``LoaderError/notVerifiable(path:_:)``, which says what would help.
  func check(
    _ source: ModelSource, tables: [Int], families: [BundleFamily]
  ) throws(LoaderError) {
    guard self == .always else { return }
    let model = source.description
    guard !model.extents.isEmpty else {
      throw .notVerifiable(
        path: source.path,
        "the file has no checksums to verify its reads against: make an image of it with "
          + "flashinfer-convert, or do not ask for verification")
    }
    for table in tables where !RowReader.checksRows(of: model.tensors[table], in: model) {
      throw .notVerifiable(
        path: source.path,
        "rows of '\(model.tensors[table].name)' lie in extents too long to be read with each of them: "
          + "convert the model again with flashinfer-convert")
    }
    for family in families where !family.isVerifiable(model, alignment: source.readAlignment) {
      throw .notVerifiable(
        path: source.path,
        "experts do not lie in bundles with checksums of their own: convert the model again with "
          + "flashinfer-convert --bundle experts")
    }
  }
}
