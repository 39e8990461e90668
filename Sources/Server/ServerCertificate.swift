import Glibc
import NIOCore
import NIOSSL
import Synchronization

/// What the server shows who it is with, and what proves that.
///
/// Two files in PEM: a chain of certificates, its own first, and its private key, which nobody but its owner can read.
public final class ServerCertificate: Sendable {
  private let paths: (certificate: String, key: String)
  private let pair: Mutex<Pair>

  private struct Pair: Sendable {
    let chain: [NIOSSLCertificateSource]
    let key: NIOSSLPrivateKeySource
    /// When the first of its certificates ends to be valid, in seconds since 1970.
    let endSeconds: Int
  }

  private static let mostCertificateBytes = 1 << 20
  private static let mostKeyBytes = 1 << 16

  /// Reads both files.
  ///
  /// - Throws: ``FileError``, where one cannot be read, others can read the key, or they do not belong together.
  public init(certificatePath: String, keyPath: String) throws(FileError) {
    paths = (certificatePath, keyPath)
    pair = Mutex(try Self.read(certificatePath, keyPath))
  }

  /// Reads the files again; where they are not taken, the certificate stays what it was.
  ///
  /// Connections that are open go on with what they began with.
  ///
  /// - Throws: ``FileError``.
  public func reload() throws(FileError) {
    let read = try Self.read(paths.certificate, paths.key)
    pair.withLock { $0 = read }
  }

  /// A line for people where the certificate is not valid any more; nil where it is.
  public var warning: String? {
    pair.withLock(\.endSeconds) < time(nil)
      ? "\(paths.certificate): the certificate is not valid any more; clients will refuse it" : nil
  }

  /// TLS 1.2 and 1.3, of HTTP/1.1 alone; each connection is shown what was read last.
  func configuration() -> TLSConfiguration {
    let pair = pair.withLock { $0 }
    var configuration = Self.configuration(pair)
    configuration.sslContextCallback = { [self] _, promise in
      let pair = self.pair.withLock { $0 }
      var override = NIOSSLContextConfigurationOverride()
      (override.certificateChain, override.privateKey) = (pair.chain, pair.key)
      promise.succeed(override)
    }
    return configuration
  }

  private static func configuration(_ pair: Pair) -> TLSConfiguration {
    var configuration = TLSConfiguration.makeServerConfiguration(
      certificateChain: pair.chain, privateKey: pair.key)
    configuration.minimumTLSVersion = .tlsv12
    configuration.applicationProtocols = ["http/1.1"]
    return configuration
  }

  private static func read(
    _ certificatePath: String, _ keyPath: String
  ) throws(FileError) -> Pair {
    let certificateText = try PrivateFile.contents(
      certificatePath, mostBytes: mostCertificateBytes, isSecret: false, of: "the certificate")
    let keyText = try PrivateFile.contents(keyPath, mostBytes: mostKeyBytes, of: "the private key")
    let chain: [NIOSSLCertificate]
    do { chain = try NIOSSLCertificate.fromPEMBytes(certificateText) } catch {
      throw FileError(certificatePath, "there is no certificate in it, or none in PEM")
    }
    guard let own = chain.first else {
      throw FileError(certificatePath, "there is no certificate in it")
    }
    let key: NIOSSLPrivateKey
    do { key = try NIOSSLPrivateKey(bytes: keyText, format: .pem) } catch {
      throw FileError(keyPath, "there is no private key in it, or none in PEM without a passphrase")
    }
    let pair = Pair(
      chain: chain.map { .certificate($0) }, key: .privateKey(key),
      endSeconds: Int(own.notValidAfter))
    do { _ = try NIOSSLContext(configuration: configuration(pair)) } catch {
      throw FileError(
        keyPath, "the private key is not that of the first certificate in \(certificatePath)")
    }
    return pair
  }
}
