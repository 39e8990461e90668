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

  /// Whether this machine has it.
  public var isAvailable: Bool {
    switch self {
    case .scalar: return true
    case .avx2: return ck_has_avx2() != 0
    case .avx512: return ck_has_avx512() != 0
    case .neon:
      #if arch(arm64)
        return true
      #else
        return false
      #endif
    }
  }

  /// The fastest available; the environment variable `FLASHINFER_ISA` names a lesser one, for tests.
  public static let best: InstructionSet = {
    if let name = getenv("FLASHINFER_ISA"), let wanted = Self(rawValue: String(cString: name)),
      wanted.isAvailable
    {
      return wanted
    }
    return [.avx512, .avx2, .neon].first(where: \.isAvailable) ?? .scalar
  }()
}
