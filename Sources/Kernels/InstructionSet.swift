import CKernels
import Glibc

/// The instruction sets kernels exist for; all of them compute the same bits.
public enum InstructionSet: String, CaseIterable, Sendable {
  /// The compiler's baseline: runs everywhere.
  case scalar
  /// AVX2 with FMA and F16C.
  case avx2
  /// AVX-512 F, BW, VL, DQ, VNNI and VBMI.
  case avx512
  /// Arm's Advanced SIMD.
  case neon
  /// NEON with dot products of bytes (SDOT).
  case dotprod
  /// NEON with products of byte matrices (SMMLA).
  case i8mm

  /// Whether this machine has it.
  public var isAvailable: Bool { ck_has_set(code) != 0 }

  /// The fastest available; the environment variable `FLASHINFER_ISA` names a lesser one, for tests.
  public static let best: InstructionSet = {
    if let name = getenv("FLASHINFER_ISA"), let wanted = Self(rawValue: String(cString: name)),
      wanted.isAvailable
    {
      return wanted
    }
    return [.avx512, .avx2, .i8mm, .dotprod, .neon].first(where: \.isAvailable) ?? .scalar
  }()

  fileprivate var code: ck_set {
    switch self {
    case .scalar: CK_SCALAR
    case .avx2: CK_AVX2
    case .avx512: CK_AVX512
    case .neon: CK_NEON
    case .dotprod: CK_DOTPROD
    case .i8mm: CK_I8MM
    }
  }
}

/// The kernels of one instruction set (`ck_kernels.h`).
struct KernelTable: @unchecked Sendable {
  // Safety: a constant table of C functions without state.
  private let functions: UnsafePointer<ck_kernels>

  private static let best = KernelTable(.best)

  /// An unavailable set falls back to scalar.
  private init(_ set: InstructionSet) {
    guard let functions = ck_kernels_of(set.code) ?? ck_kernels_of(CK_SCALAR) else {
      preconditionFailure("scalar kernels run everywhere")
    }
    self.functions = functions
  }

  /// The kernels of `set`, nil = the best that this machine has, which is decided once.
  static func of(_ set: InstructionSet?) -> UnsafePointer<ck_kernels> {
    (set.map(KernelTable.init) ?? best).functions
  }
}
