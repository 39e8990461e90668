// swift-tools-version: 6.3
import PackageDescription

// Elsewhere: .package(url: "https://…/flashinfer", from: "0.2.0")
let package = Package(
  name: "flashinfer-examples",
  dependencies: [.package(name: "flashinfer", path: "../..")],
  targets: [
    .executableTarget(
      name: "stream", dependencies: [.product(name: "WeightLoader", package: "flashinfer")],
      swiftSettings: [.enableUpcomingFeature("MemberImportVisibility")]),
    .executableTarget(
      name: "budget",
      dependencies: [
        .product(name: "WeightLoader", package: "flashinfer"),
        .product(name: "Runtime", package: "flashinfer"),
      ]),
    .executableTarget(
      name: "generate", dependencies: [.product(name: "Runtime", package: "flashinfer")]),
    .executableTarget(
      name: "experts", dependencies: [.product(name: "WeightLoader", package: "flashinfer")]),
  ]
)
