import BlockIO
import Calibration
import CommandLineSupport
import KVCache
import ModelFormat
import Runtime
import TensorBasics
import WeightLoader

extension PlanReport {
  /// Writes the members of the plan.
  func write(to json: inout JSONWriter) {
    json.text("sourceIdentity", sourceIdentity?.description)
    json.object("plan") { json in
      json.number("budgetBytes", plan.budgetByteCount)
      json.number("processBytes", processByteCount)
      json.number("keyValueBytes", plan.keyValueByteCount)
      if plan.stateByteCount > 0 { json.number("stateBytes", plan.stateByteCount) }
      json.number("activationBytes", plan.workspaceByteCount)
      json.number("pinnedBytes", plan.residency.pinnedByteCount)
      json.number("stagingBytes", plan.residency.stagingByteCount)
      json.number("streamedBytes", plan.residency.streamedByteCount)
      if let slots = plan.expertSlots {
        json.number("expertsInMemory", slots.slotCount)
        json.number("experts", plan.expertCount)
        json.number("expertBytesInMemory", slots.byteCount)
      }
      if let neurons = plan.neurons {
        json.text("selector", neurons.selector.rawValue)
        json.number("neuronBundlesInMemory", neurons.slotCount)
        json.number("neuronBundles", neurons.bundleCount)
        json.number("neuronBundleBytes", neurons.slotByteCount)
      }
      json.number("contextLength", plan.contextLength)
      json.number("promptLength", promptLength)
      json.number("chunkLength", plan.chunkLength)
      json.number("sequences", plan.sequenceCount)
      json.number("rowsPerSweep", plan.sequenceCount)
      json.number("draftRowsPerSweep", plan.draftRowCount)
      if let draft {
        json.object("draftModel") { json in
          json.text("path", draft.path)
          json.number("bytes", draft.byteCount)
          json.number("streamedBytesWithout", draft.streamedByteCountWithout)
          if let seconds = draft.stepSeconds { json.number("secondsPerToken", seconds) }
        }
      }
    }
    if let prediction {
      json.object("predicted") { json in
        json.number("totalTokensPerSecond", prediction.totalTokensPerSecond)
        json.number("decodeTokensPerSecond", prediction.decodeTokensPerSecond)
        json.number("prefillTokensPerSecond", prediction.prefillTokensPerSecond)
        json.text("limit", prediction.limit.rawValue)
        json.number("driveSeconds", prediction.driveSeconds)
        json.number("computeSeconds", prediction.computeSeconds)
        json.number("sweepSeconds", prediction.sweepSeconds)
        for drafts in draftSpeedUps {
          json.number("speedUpAt\(drafts.tokensPerSweep)TokensPerSweep", drafts.speedUp)
        }
      }
    }
    if let drive, let compute {
      json.object("calibration") { json in
        json.number("driveBytesPerSecond", drive.bytesPerSecond)
        json.number("driveBytesPerSecondWhileComputing", drive.bytesPerSecondWhileComputing)
        json.number("blockBytes", drive.blockByteCount)
        json.number("queueDepth", drive.queueDepth)
        json.number("processorSecondsPerByte", drive.processorSecondsPerByte)
        json.number("memoryBytesPerSecond", compute.memoryBytesPerSecond)
        json.number("regionSeconds", compute.regionSeconds)
      }
    }
  }
}
