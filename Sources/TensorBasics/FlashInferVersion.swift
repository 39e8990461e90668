/// The version of the package, of its programs and of its libraries.
public enum FlashInferVersion {
  /// What the file `VERSION` says, which is where a release changes it; a test compares the two.
  public static let current = "0.2.0"
}
