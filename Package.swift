// swift-tools-version: 6.3
import PackageDescription

/// `tools/fuzz` sets it: then the package has the fuzzer, which needs libFuzzer to link.
let fuzzes = Context.environment["FLASHINFER_FUZZ"] != nil

/// `tools/server` sets it: then the package has the server, and what that depends on (docs/decisions/0049).
let serves = Context.environment["FLASHINFER_SERVER"] != nil

/// Settings of every Swift target: Swift 6 language mode, warnings are errors, imports are
/// internal unless a public declaration needs them.
let strict: [SwiftSetting] = [
  .swiftLanguageMode(.v6),
  .treatAllWarnings(as: .error),
  .enableUpcomingFeature("ExistentialAny"),
  .enableUpcomingFeature("InternalImportsByDefault"),
  .enableUpcomingFeature("MemberImportVisibility"),
]

let argumentParser: Target.Dependency = .product(
  name: "ArgumentParser", package: "swift-argument-parser")

/// A library target with its README; the dependencies are the import table of `docs/architecture.md`.
func library(
  _ name: String, _ dependencies: [Target.Dependency] = [], resources: [Resource] = []
) -> Target {
  .target(
    name: name, dependencies: dependencies, exclude: ["README.md"], resources: resources,
    swiftSettings: strict)
}

/// A thin executable: parse, call, exit code.
func executable(
  _ name: String, _ dependencies: [Target.Dependency], settings: [SwiftSetting] = []
) -> Target {
  .executableTarget(
    name: name, dependencies: dependencies + [argumentParser], swiftSettings: strict + settings)
}

func tests(
  _ target: String, _ dependencies: [Target.Dependency] = [], exclude: [String] = []
) -> Target {
  .testTarget(
    name: target + "Tests", dependencies: [.byName(name: target), "TestSupport"] + dependencies,
    exclude: exclude, swiftSettings: strict)
}

/// What the server is built of, beside the package's own targets.
let serverPackages: [Package.Dependency] = [
  // Without its readers of configuration files, and without all of Foundation.
  .package(url: "https://github.com/hummingbird-project/hummingbird", from: "2.28.0", traits: []),
  .package(url: "https://github.com/apple/swift-nio", from: "2.101.0"),
  .package(url: "https://github.com/apple/swift-nio-extras", from: "1.34.0"),
  .package(url: "https://github.com/apple/swift-nio-ssl", from: "2.37.2"),
  .package(url: "https://github.com/apple/swift-log", from: "1.14.0"),
  .package(url: "https://github.com/apple/swift-metrics", from: "2.13.0"),
  .package(url: "https://github.com/apple/swift-http-types", from: "1.8.0", traits: []),
  .package(url: "https://github.com/swift-server/swift-service-lifecycle", from: "2.13.0"),
]

/// HTTP around `Engine`: the library, its program and its tests.
let server: [Target] = [
  library(
    "Server",
    [
      "TensorBasics", "ModelFormat", "Tokenization", "Grammar", "WeightLoader", "Runtime",
      .product(name: "Hummingbird", package: "hummingbird"),
      .product(name: "HummingbirdCore", package: "hummingbird"),
      .product(name: "HummingbirdTLS", package: "hummingbird"),
      .product(name: "NIOCore", package: "swift-nio"),
      .product(name: "NIOPosix", package: "swift-nio"),
      .product(name: "NIOHTTP1", package: "swift-nio"),
      .product(name: "NIOHTTPTypes", package: "swift-nio-extras"),
      .product(name: "NIOHTTPTypesHTTP1", package: "swift-nio-extras"),
      .product(name: "NIOSSL", package: "swift-nio-ssl"),
      .product(name: "Logging", package: "swift-log"),
      .product(name: "CoreMetrics", package: "swift-metrics"),
      .product(name: "HTTPTypes", package: "swift-http-types"),
      .product(name: "ServiceLifecycle", package: "swift-service-lifecycle"),
      .product(name: "UnixSignals", package: "swift-service-lifecycle"),
    ], resources: [.embedInCode("Page"), .embedInCode("openapi.json")]),
  library(
    "ServerLoad",
    [
      "TensorBasics", "ModelFormat",
      .product(name: "NIOCore", package: "swift-nio"),
      .product(name: "NIOPosix", package: "swift-nio"),
      .product(name: "NIOHTTP1", package: "swift-nio"),
      .product(name: "NIOHTTPTypes", package: "swift-nio-extras"),
      .product(name: "NIOHTTPTypesHTTP1", package: "swift-nio-extras"),
      .product(name: "HTTPTypes", package: "swift-http-types"),
    ]),
  executable(
    "flashinfer-serve",
    [
      "Server", "CommandLineSupport", "Runtime", "WeightLoader", "ModelFormat", "BlockIO",
      "HostResources", "TensorBasics",
      .product(name: "Logging", package: "swift-log"),
    ]),
  tests(
    "Server",
    [
      "ServerLoad",
      "TensorBasics", "ModelFormat", "Tokenization", "Grammar", "WeightLoader", "Runtime",
      .product(name: "NIOCore", package: "swift-nio"),
      .product(name: "NIOPosix", package: "swift-nio"),
      .product(name: "Logging", package: "swift-log"),
      .product(name: "CoreMetrics", package: "swift-metrics"),
    ], exclude: ["Clients"]),
]

/// libFuzzer around `FuzzTargets`, with a main function of its own.
let fuzzer: [Target] = [
  .systemLibrary(name: "CLibFuzzer", path: "Fuzz/CLibFuzzer"),
  .executableTarget(
    name: "flashinfer-fuzz", dependencies: ["FuzzTargets", "CLibFuzzer"], path: "Fuzz/Driver",
    swiftSettings: strict),
]

let package = Package(
  name: "flashinfer",
  products: [
    .library(name: "WeightLoader", targets: ["WeightLoader"]),
    .library(name: "Runtime", targets: ["Runtime"]),
    .library(name: "FlashInferC", type: .static, targets: ["FlashInferC"]),
    .executable(name: "flashinfer-run", targets: ["flashinfer-run"]),
    .executable(name: "flashinfer-convert", targets: ["flashinfer-convert"]),
    .executable(name: "flashinfer-inspect", targets: ["flashinfer-inspect"]),
    .executable(name: "flashinfer-bench", targets: ["flashinfer-bench"]),
  ],
  dependencies: [
    .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.0")
  ] + (serves ? serverPackages : []),
  targets: [
    // System shims
    .systemLibrary(
      name: "CLinuxURing", pkgConfig: "liburing", providers: [.apt(["liburing-dev"])]),
    .systemLibrary(
      name: "CPCRE2", pkgConfig: "libpcre2-8", providers: [.apt(["libpcre2-dev"])]),
    // Without pkg-config, whose flags for it SwiftPM complains of.
    .systemLibrary(name: "CUTF8Proc", providers: [.apt(["libutf8proc-dev"])]),
    .systemLibrary(name: "CEditLine", providers: [.apt(["libedit-dev"])]),
    .systemLibrary(
      name: "CXXHash", pkgConfig: "libxxhash", providers: [.apt(["libxxhash-dev"])]),
    .target(name: "CKernels"),

    // Libraries, lowest first
    library("Jinja"),
    library("TensorBasics", ["CXXHash"]),
    library("HostResources", ["TensorBasics"]),
    library("BlockIO", ["TensorBasics", "HostResources", "CLinuxURing"]),
    library("ModelFormat", ["TensorBasics"]),
    library(
      "Tokenization", ["TensorBasics", "Jinja", "ModelFormat", "CPCRE2", "CUTF8Proc"]),
    library("Grammar", ["TensorBasics", "ModelFormat"]),
    library("Kernels", ["TensorBasics", "HostResources", "CKernels"]),
    library(
      "WeightLoader", ["TensorBasics", "HostResources", "BlockIO", "ModelFormat", "Kernels"]),
    library("KVCache", ["TensorBasics", "BlockIO", "Kernels"]),
    library(
      "InStorageAttention", ["TensorBasics", "HostResources", "BlockIO", "Kernels"]),
    library(
      "ModelConversion", ["TensorBasics", "BlockIO", "ModelFormat", "Kernels", "WeightLoader"]),
    library(
      "Runtime",
      [
        "TensorBasics", "HostResources", "BlockIO", "ModelFormat", "Tokenization", "Grammar",
        "Kernels", "WeightLoader", "KVCache",
      ]),
    library(
      "Calibration",
      [
        "TensorBasics", "HostResources", "BlockIO", "ModelFormat", "Kernels", "WeightLoader",
        "KVCache", "Runtime",
      ]),
    library(
      "CommandLineSupport",
      [
        "TensorBasics", "HostResources", "BlockIO", "ModelFormat", "Tokenization", "Kernels",
        "WeightLoader",
        "KVCache", "InStorageAttention", "Runtime", "Calibration", argumentParser,
      ]),

    // The C interface: a hand-written header, and what implements it.
    .target(name: "CFlashInfer"),
    library(
      "FlashInferC",
      [
        "CFlashInfer", "TensorBasics", "HostResources", "BlockIO", "ModelFormat", "Tokenization",
        "Kernels", "WeightLoader", "KVCache", "Runtime",
      ]),

    // Executables
    executable(
      "flashinfer-run",
      [
        "CommandLineSupport", "InStorageAttention", "Runtime", "WeightLoader", "KVCache",
        "ModelFormat", "Tokenization", "Grammar", "HostResources", "TensorBasics", "CEditLine",
      ]),
    executable(
      "flashinfer-convert",
      [
        "CommandLineSupport", "ModelConversion", "WeightLoader", "BlockIO", "ModelFormat",
        "HostResources", "TensorBasics",
      ]),
    executable(
      "flashinfer-inspect",
      [
        "CommandLineSupport", "Calibration", "Runtime", "WeightLoader", "KVCache", "BlockIO",
        "ModelFormat", "Jinja", "Tokenization", "HostResources", "TensorBasics",
      ]),
    executable(
      "flashinfer-bench",
      [
        "CommandLineSupport", "Calibration", "InStorageAttention", "Runtime", "WeightLoader",
        "Kernels", "KVCache", "BlockIO", "ModelFormat", "HostResources", "TensorBasics",
      ] + (serves ? ["ServerLoad"] : []),
      settings: serves ? [.define("FLASHINFER_SERVER")] : []),

    // Tests
    .testTarget(name: "TidyTests", swiftSettings: strict),
    .target(name: "CThreadSanitizer", path: "Tests/CThreadSanitizer"),
    library("TestSupport", ["TensorBasics", "BlockIO", "ModelFormat", "CThreadSanitizer"]),
    tests("TensorBasics"),
    tests("Jinja", ["ModelFormat", "Tokenization"], exclude: ["Cases"]),
    tests("HostResources", ["TensorBasics", "Kernels", "BlockIO"]),
    tests("BlockIO", ["TensorBasics"]),
    tests("ModelFormat", ["TensorBasics"]),
    tests(
      "Tokenization", ["TensorBasics", "Jinja", "ModelFormat"],
      exclude: ["ChatIds", "Tokenizers", "Vocabularies"]),
    tests(
      "Grammar", ["TensorBasics", "ModelFormat", "Tokenization", "WeightLoader"],
      exclude: ["Schemas"]),
    tests("Kernels", ["TensorBasics", "HostResources"], exclude: ["Vectors"]),
    tests("KVCache", ["TensorBasics", "BlockIO", "ModelFormat", "Kernels"]),
    tests(
      "InStorageAttention",
      ["TensorBasics", "BlockIO", "ModelFormat", "Kernels", "WeightLoader", "KVCache", "Runtime"]),
    tests("CommandLineSupport"),
    tests("Calibration", ["TensorBasics", "BlockIO", "ModelFormat", "WeightLoader", "Runtime"]),
    // Runs the executables; they are not its dependencies, so that a test build links them once.
    .testTarget(
      name: "CommandLineTests", dependencies: ["TestSupport", "TensorBasics"], swiftSettings: strict
    ),
    // Runs what tools/test installs: the C library, the Python package and the examples.
    .testTarget(
      name: "EmbeddingTests", dependencies: ["TestSupport", "ModelFormat", "TensorBasics"],
      exclude: ["Programs"], swiftSettings: strict),
    tests("WeightLoader", ["TensorBasics", "BlockIO", "ModelFormat"]),
    tests(
      "ModelConversion",
      [
        "TensorBasics", "BlockIO", "ModelFormat", "Tokenization", "Kernels", "WeightLoader",
        "Runtime",
      ], exclude: ["Vectors"]),
    // What libFuzzer feeds; tests replay its inputs. The fuzzer itself: see `tools/fuzz`.
    .target(
      name: "FuzzTargets",
      dependencies: [
        "TensorBasics", "Jinja", "ModelFormat", "Tokenization", "KVCache", "TestSupport",
        "CFlashInfer", "FlashInferC",
      ],
      path: "Fuzz/Targets", swiftSettings: strict),
    tests("FuzzTargets", ["ModelFormat"]),
    .target(name: "CAllocationCount", path: "Tests/CAllocationCount"),
    tests(
      "Runtime",
      [
        "TensorBasics", "BlockIO", "ModelFormat", "Tokenization", "Kernels", "WeightLoader",
        "ModelConversion", "KVCache", "Grammar", "CAllocationCount",
      ]),
  ] + (fuzzes ? fuzzer : []) + (serves ? server : []),
  cLanguageStandard: .c17
)
